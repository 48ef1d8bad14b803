// What this process has open: what tests compare before and after.
#pragma once

#include <fcntl.h>

#include <cstddef>
#include <set>

namespace polarx {

// Those below 4096; no test opens more.
inline std::set<int> Descriptors() {
  std::set<int> open;
  for (int fd = 0; fd < 4096; ++fd) {
    if (::fcntl(fd, F_GETFD) >= 0) {
      open.insert(fd);
    }
  }
  return open;
}

inline std::size_t OpenDescriptors() { return Descriptors().size(); }

}  // namespace polarx
