// Where sessions knock: the pooler worker's Unix socket is set up and removed here; on its main
// thread.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "pg/base/guc.h"
#include "pg/shared/registry.h"
#include "pg/worker/worker_socket.h"

#include "pg/prelude.h"

namespace polarx {
namespace {

constexpr int kBacklog = 1024;

char socket_path[MAXPGPATH] = "";
char lock_path[MAXPGPATH] = "";
int lock_fd = -1;

// Does the locked file still stand at its path? Its last owner removes it.
bool IsInPlace(int fd) {
  struct stat opened;
  struct stat named;
  return fstat(fd, &opened) == 0 && stat(lock_path, &named) == 0 &&
         opened.st_dev == named.st_dev && opened.st_ino == named.st_ino;
}

// Returns the locked descriptor, or -1 with errno (EWOULDBLOCK: somebody else has the lock).
int TakeLock() {
  for (;;) {
    const int fd = open(lock_path, O_RDWR | O_CREAT | O_CLOEXEC, S_IRUSR | S_IWUSR);
    if (fd < 0) {
      return -1;
    }
    const bool locked = flock(fd, LOCK_EX | LOCK_NB) == 0;
    if (locked && IsInPlace(fd)) {
      return fd;
    }
    const int reason = errno;
    close(fd);
    if (!locked) {
      errno = reason;
      return -1;
    }
  }
}

int BindAndListen() {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  strlcpy(address.sun_path, socket_path, sizeof(address.sun_path));
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) {
    return -1;
  }
  const mode_t mask = umask(S_IXUSR | S_IRWXG | S_IRWXO);
  const int bound = bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address));
  const int bind_errno = errno;
  umask(mask);
  if (bound != 0 || listen(fd, kBacklog) != 0) {
    const int reason = bound != 0 ? bind_errno : errno;
    close(fd);
    errno = reason;
    return -1;
  }
  return fd;
}

}  // namespace

int WorkerSocketListen(Oid database, int* code, char* error, size_t size) {
  RegistrySocketPath(database, socket_path, sizeof(socket_path));
  snprintf(lock_path, sizeof(lock_path), "%s.lock", socket_path);
  lock_fd = TakeLock();
  if (lock_fd < 0) {
    const bool taken = errno == EWOULDBLOCK;
    *code = taken ? ERRCODE_CANNOT_CONNECT_NOW : ERRCODE_IO_ERROR;
    if (taken) {
      snprintf(error, size, "pooler port %d is in use: another process holds the lock \"%s\"",
               parameters.port, lock_path);
    } else {
      snprintf(error, size, "could not lock \"%s\": %m", lock_path);
    }
    return -1;
  }
  // With the lock in hand: what is there was left by a process that ended abruptly.
  (void)unlink(socket_path);
  const int fd = BindAndListen();
  if (fd < 0) {
    *code = ERRCODE_CANNOT_CONNECT_NOW;
    snprintf(error, size, "could not listen on Unix socket \"%s\": %m", socket_path);
  }
  return fd;
}

void WorkerSocketRemove() {
  if (lock_fd >= 0) {
    (void)unlink(socket_path);
    (void)unlink(lock_path);
    close(lock_fd);
    lock_fd = -1;
  }
}

}  // namespace polarx
