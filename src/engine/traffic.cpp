// The kernel's count of what went over a TCP connection.
#include "engine/traffic.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstddef>

namespace polarx {

std::optional<std::uint64_t> BytesMoved(int socket) noexcept {
  tcp_info info = {};
  socklen_t size = sizeof(info);
  constexpr std::size_t kNeeded =
      offsetof(tcp_info, tcpi_bytes_sent) + sizeof(info.tcpi_bytes_sent);
  if (::getsockopt(socket, IPPROTO_TCP, TCP_INFO, &info, &size) != 0 || size < kNeeded) {
    return std::nullopt;  // or the kernel is too old to count what is sent
  }
  return info.tcpi_bytes_sent + info.tcpi_bytes_received;
}

}  // namespace polarx
