// How much has gone over a connection.
#pragma once

#include <cstdint>
#include <optional>

namespace polarx {

// The bytes that have come and gone over a TCP connection since it was opened, as the kernel counts
// them. Returns nothing for another kind of socket, where nobody counts.
std::optional<std::uint64_t> BytesMoved(int socket) noexcept;

}  // namespace polarx
