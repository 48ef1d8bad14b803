// Memory that is used up, for the thread that says so.
#pragma once

#include <new>

namespace polarx {

// While it lives, this thread gets memory by operator new `allowed` times more, then bad_alloc.
class NoMemory {
 public:
  explicit NoMemory(int allowed = 0);
  ~NoMemory();
  NoMemory(const NoMemory&) = delete;
  NoMemory& operator=(const NoMemory&) = delete;
};

}  // namespace polarx
