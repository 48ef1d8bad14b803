// Sends and receives bytes with descriptors over a connected Unix stream socket, without blocking;
// any process, any thread, one at a time a socket.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/status.h"
#include "engine/unique_fd.h"

namespace polarx {

// Linux takes 253 descriptors a message; more go as several messages.
inline constexpr std::size_t kMaxFdsPerMessage = 250;

struct SendProgress {
  std::size_t bytes = 0;  // of the data
  std::size_t fds = 0;    // of the descriptors, the first ones
  // It ended there because this user has too many descriptors under way: no event of the socket
  // tells when that is over.
  bool too_many_fds = false;
};

// Sends as much as goes. Descriptors go with the earliest bytes; `data` must have at least one byte
// for every started group of kMaxFdsPerMessage. What does not go is to be tried again: when the
// socket has room, or by time where too_many_fds says so. An error (08006): the peer is gone. The
// caller keeps its descriptors.
Result<SendProgress> SendWithFds(int socket, std::string_view data, std::span<const int> fds);

// Most bytes that one ReceiveWithFds reads.
inline constexpr std::size_t kReceiveSize = 16384;

enum class ReceiveState { kData, kWouldBlock, kEndOfFile };

// One recvmsg: appends the bytes to `data` and the descriptors (close-on-exec) to `fds`. An error:
// the peer is gone (08006), or this process has no room for the descriptors (53000: those got so
// far are closed, the bytes that came with them are lost).
// Where memory is used up it throws, and what came is lost: its descriptors are closed, here or
// with `fds`. `fds` == nullptr: descriptors that come never become this process's.
Result<ReceiveState> ReceiveWithFds(int socket, std::string* data, std::vector<UniqueFd>* fds);

}  // namespace polarx
