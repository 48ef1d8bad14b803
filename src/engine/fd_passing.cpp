// Bytes and descriptors cross a Unix socket here; on the thread that calls.
#include "engine/fd_passing.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

namespace polarx {
namespace {

// What the kernel may deliver in one message.
constexpr std::size_t kMaxFdsReceived = 253;

template <std::size_t kFds>
union ControlBuffer {
  cmsghdr align;
  char bytes[CMSG_SPACE(sizeof(int) * kFds)];
};

Status PeerGone(const char* what, int error) {
  return Status(sqlstate::kConnectionLost,
                std::string(what) + ": " + std::generic_category().message(error));
}

// Bytes sent, or -1 with errno.
ssize_t SendGroup(int socket, std::string_view data, std::span<const int> fds) {
  ControlBuffer<kMaxFdsPerMessage> control;
  iovec part{const_cast<char*>(data.data()), data.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (!fds.empty()) {
    message.msg_control = control.bytes;
    message.msg_controllen = CMSG_SPACE(fds.size_bytes());
    std::memset(control.bytes, 0, message.msg_controllen);
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(fds.size_bytes());
    std::memcpy(CMSG_DATA(header), fds.data(), fds.size_bytes());
  }
  ssize_t sent;
  do {
    sent = ::sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  } while (sent < 0 && errno == EINTR);
  return sent;
}

// The descriptors of one message, whose they are until somebody takes them.
class Received {
 public:
  explicit Received(msghdr* message) {
    for (cmsghdr* header = CMSG_FIRSTHDR(message); header != nullptr;
         header = CMSG_NXTHDR(message, header)) {
      if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) {
        continue;
      }
      const std::size_t more = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
      assert(count_ + more <= kMaxFdsReceived);
      std::memcpy(fds_ + count_, CMSG_DATA(header), more * sizeof(int));
      count_ += more;
    }
  }
  ~Received() {
    for (std::size_t i = 0; i < count_; ++i) {
      ::close(fds_[i]);
    }
  }
  Received(const Received&) = delete;
  Received& operator=(const Received&) = delete;

  void MoveTo(std::vector<UniqueFd>* fds) {
    fds->reserve(fds->size() + count_);  // from here on nothing throws
    const std::span<const int> taken(fds_, std::exchange(count_, 0));
    for (const int fd : taken) {
      fds->emplace_back(fd);
    }
  }

 private:
  std::size_t count_ = 0;
  int fds_[kMaxFdsReceived];
};

}  // namespace

Result<SendProgress> SendWithFds(int socket, std::string_view data, std::span<const int> fds) {
  assert(data.size() * kMaxFdsPerMessage >= fds.size());
  SendProgress progress;
  while (progress.bytes < data.size()) {
    const auto group =
        fds.subspan(progress.fds, std::min(kMaxFdsPerMessage, fds.size() - progress.fds));
    // All groups but the last take one byte along, so that no group is left without one.
    const bool last = progress.fds + group.size() == fds.size();
    const std::string_view bytes = data.substr(progress.bytes, last ? data.npos : 1);
    const ssize_t sent = SendGroup(socket, bytes, group);
    if (sent < 0) {
      progress.too_many_fds = errno == ETOOMANYREFS;
      const bool full = errno == EAGAIN || errno == EWOULDBLOCK || progress.too_many_fds;
      if (full || progress.bytes > 0) {
        break;  // a lasting error shows again at the next call
      }
      return PeerGone("could not send to the other end of the pooler's socket", errno);
    }
    progress.bytes += static_cast<std::size_t>(sent);
    progress.fds += group.size();
  }
  return progress;
}

Result<ReceiveState> ReceiveWithFds(int socket, std::string* data, std::vector<UniqueFd>* fds) {
  char bytes[kReceiveSize];
  ControlBuffer<kMaxFdsReceived> control;
  iovec part{bytes, sizeof(bytes)};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (fds != nullptr) {  // without room for them the kernel drops descriptors before they are ours
    message.msg_control = control.bytes;
    message.msg_controllen = sizeof(control.bytes);
  }
  ssize_t received;
  do {
    received = ::recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  } while (received < 0 && errno == EINTR);
  if (received < 0) {
    if (errno == EAGAIN || errno == EWOULDBLOCK) {
      return ReceiveState::kWouldBlock;
    }
    return PeerGone("could not receive from the other end of the pooler's socket", errno);
  }
  if (fds != nullptr) {
    Received own(&message);
    if ((message.msg_flags & MSG_CTRUNC) != 0) {
      // The buffer holds whatever the kernel may deliver, so descriptors are what ran out.
      return Status(sqlstate::kOutOfDescriptors,
                    "could not receive a descriptor: this process has no free file descriptors");
    }
    own.MoveTo(fds);
  }
  if (received == 0) {
    return ReceiveState::kEndOfFile;
  }
  data->append(bytes, static_cast<std::size_t>(received));
  return ReceiveState::kData;
}

}  // namespace polarx
