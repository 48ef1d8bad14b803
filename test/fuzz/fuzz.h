// What the fuzz targets have in common; a target is a process with one thread.
#pragma once

#include <dirent.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

namespace polarx::fuzz {

// Ends the process where `holds` is false: libFuzzer then keeps the input.
inline void Require(bool holds, const char* what) {
  if (!holds) {
    std::fprintf(stderr, "\nnot so: %s\n", what);
    std::abort();
  }
}

inline std::string_view Text(const std::uint8_t* data, std::size_t size) {
  return size == 0 ? std::string_view()
                   : std::string_view(reinterpret_cast<const char*>(data), size);
}

// How many descriptors this process has.
inline int OpenDescriptors() {
  static DIR* const directory = ::opendir("/proc/self/fd");
  Require(directory != nullptr, "/proc/self/fd can be read");
  ::rewinddir(directory);
  int count = 0;
  while (::readdir(directory) != nullptr) {
    ++count;
  }
  return count;
}

// As many descriptors at its end as at its beginning.
class DescriptorsKept {
 public:
  ~DescriptorsKept() { Require(OpenDescriptors() == before_, "every descriptor was closed"); }

 private:
  const int before_ = OpenDescriptors();
};

inline bool IsSqlstate(std::string_view text) {
  return text.size() == 5 &&
         text.find_first_not_of("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") == std::string_view::npos;
}

}  // namespace polarx::fuzz
