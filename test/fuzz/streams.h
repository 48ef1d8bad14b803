// A Unix stream as the fuzz targets use it: bytes in chunks of any size, with descriptors anywhere.
#pragma once

#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fuzz.h"
#include "engine/pooler_client.h"
#include "engine/unique_fd.h"

namespace polarx::fuzz {

// Files that can be told apart, to be sent in this order again and again.
class Files {
 public:
  static constexpr std::size_t kCount = 16;

  Files() {
    for (std::size_t i = 0; i < kCount; ++i) {
      files_[i].Reset(::memfd_create("fuzz", MFD_CLOEXEC));
      identities_[i] = Identity(files_[i].get());
    }
  }
  int Get(std::size_t index) const { return files_[index % kCount].get(); }
  bool Is(const UniqueFd& fd, std::size_t index) const {
    return Identity(fd.get()) == identities_[index % kCount];
  }

 private:
  static ino_t Identity(int fd) {
    struct stat found {};
    Require(::fstat(fd, &found) == 0, "a descriptor is open");
    return found.st_ino;
  }

  std::array<UniqueFd, kCount> files_;
  std::array<ino_t, kCount> identities_{};
};

inline const Files& SharedFiles() {
  static const Files files;
  return files;
}

// One message with up to 253 descriptors, which is what the kernel takes. Bytes sent; 0: the socket
// is full, or too many descriptors are under way.
inline std::size_t SendChunk(int socket, std::string_view chunk, const std::vector<int>& fds) {
  constexpr std::size_t kMost = 253;
  union {
    cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(int) * kMost)];
  } control{};
  iovec part{const_cast<char*>(chunk.data()), chunk.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (!fds.empty()) {
    const std::size_t size = fds.size() * sizeof(int);
    Require(fds.size() <= kMost, "few descriptors");
    message.msg_control = control.bytes;
    message.msg_controllen = CMSG_SPACE(size);
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(size);
    std::memcpy(CMSG_DATA(header), fds.data(), size);
  }
  const ssize_t sent = ::sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  Require(sent > 0 || errno == EAGAIN || errno == ETOOMANYREFS, "the other end is open");
  return sent > 0 ? static_cast<std::size_t>(sent) : 0;
}

inline std::pair<UniqueFd, UniqueFd> SocketPair() {
  int ends[2] = {-1, -1};
  Require(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0,
          "socketpair");
  return {UniqueFd(ends[0]), UniqueFd(ends[1])};
}

// The smallest buffer that the kernel gives: what is sent comes in pieces.
inline void MakeNarrow(int socket) {
  const int size = 1;
  Require(::setsockopt(socket, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)) == 0, "SO_SNDBUF");
}

// A listener with an abstract name, of which PoolerClient::Connect fills the address to its end.
class ClientListener {
 public:
  ClientListener() : socket_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    path_ = '\0' + std::string("polarx-fuzz-") + std::to_string(::getpid());
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path_.copy(address.sun_path, sizeof(address.sun_path));
    Require(::bind(socket_.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0 &&
                ::listen(socket_.get(), 8) == 0,
            "a listener");
  }
  // A client and the pooler's end of its socket.
  std::pair<PoolerClient, UniqueFd> Connect() const {
    Result<std::optional<PoolerClient>> client = PoolerClient::Connect(path_, ::getpid());
    Require(client.ok() && client.value().has_value(), "a client connects");
    UniqueFd pooler(::accept4(socket_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    Require(static_cast<bool>(pooler), "accept");
    return {std::move(*client.value()), std::move(pooler)};
  }

 private:
  UniqueFd socket_;
  std::string path_;
};

}  // namespace polarx::fuzz
