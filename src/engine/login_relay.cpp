// Stands between a PGconn and its datanode during a login; on the worker thread that opens the
// connection.
#include "engine/login_relay.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cassert>
#include <cerrno>

#include "engine/adopt.h"

namespace polarx {
namespace {

bool CanBeRead(int socket) {
  int bytes = 0;
  return ::ioctl(socket, FIONREAD, &bytes) == 0 && bytes > 0;
}

}  // namespace

bool LoginRelay::Begin(PGconn* conn) {
  int ends[2] = {-1, -1};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) != 0) {
    return false;
  }
  const UniqueFd inside(ends[0]);
  outside_.Reset(ends[1]);
  datanode_.Reset(::fcntl(PQsocket(conn), F_DUPFD_CLOEXEC, 0));
  return datanode_ && PutUnder(conn, inside.get());
}

// Only what comes takes memory: that of a login is what a connection leaves behind.
std::size_t LoginRelay::Read(std::size_t window) {
  char bytes[4096];
  const std::size_t before = unread_.size();
  assert(before <= window);
  while (unread_.size() < window) {
    const std::size_t most = std::min(sizeof(bytes), window - unread_.size());
    const ssize_t got = ::recv(datanode_.get(), bytes, most, MSG_DONTWAIT);
    if (got <= 0) {
      ended_ = ended_ || got == 0 || (errno != EAGAIN && errno != EINTR);
      break;
    }
    unread_.append(bytes, static_cast<std::size_t>(got));
    if (static_cast<std::size_t>(got) < most) {
      break;  // that was all
    }
  }
  return unread_.size() - before;
}

PostgresPollingStatusType LoginRelay::Feed(PGconn* conn, std::size_t size) {
  assert(size <= unread_.size());
  const ssize_t sent = ::send(outside_.get(), unread_.data(), size, MSG_NOSIGNAL);
  unread_.erase(0, static_cast<std::size_t>(std::max<ssize_t>(sent, 0)));
  if (ended_ && unread_.empty()) {
    (void)::shutdown(outside_.get(), SHUT_WR);
  }
  PostgresPollingStatusType state = PGRES_POLLING_READING;
  // libpq reads as much as it has room for. As long as it reads, its end is under the PGconn.
  do {
    state = PQconnectPoll(conn);
  } while (state == PGRES_POLLING_READING && CanBeRead(PQsocket(conn)));
  PassOn();
  return state;
}

// The datanode's socket takes what a login needs at once.
void LoginRelay::PassOn() {
  char bytes[1024];
  ssize_t got;
  while ((got = ::recv(outside_.get(), bytes, sizeof(bytes), MSG_DONTWAIT)) > 0) {
    if (::send(datanode_.get(), bytes, static_cast<std::size_t>(got), MSG_NOSIGNAL) != got) {
      (void)::shutdown(datanode_.get(), SHUT_RDWR);
      return;
    }
  }
}

bool LoginRelay::End(PGconn* conn) { return PutUnder(conn, datanode_.get()); }

}  // namespace polarx
