// Memory that is used up, for the thread that says so: operator new of the whole test program.
#include "fake/memory.h"

#include <cassert>
#include <cstdlib>

namespace {
constexpr int kUnlimited = -1;
thread_local int allowed_allocations = kUnlimited;
}  // namespace

#if POLARX_OWN_OPERATOR_NEW
void* operator new(std::size_t size) {
  if (allowed_allocations == 0) {
    throw std::bad_alloc();
  }
  if (allowed_allocations > 0) {
    --allowed_allocations;
  }
  void* memory = std::malloc(size);
  if (memory == nullptr) {
    throw std::bad_alloc();
  }
  return memory;
}

void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
#endif

namespace polarx {

NoMemory::NoMemory(int allowed) {
  assert(allowed_allocations == kUnlimited && allowed >= 0);
  allowed_allocations = allowed;
}

NoMemory::~NoMemory() { allowed_allocations = kUnlimited; }

}  // namespace polarx
