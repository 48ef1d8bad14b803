// Memory that is used up, for the thread that says so.
#pragma once

#include <new>

// The sanitizers have an operator new of their own, which cannot be replaced.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define POLARX_OWN_OPERATOR_NEW 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define POLARX_OWN_OPERATOR_NEW 0
#endif
#endif
#ifndef POLARX_OWN_OPERATOR_NEW
#define POLARX_OWN_OPERATOR_NEW 1
#endif

namespace polarx {

// While it lives, this thread gets memory by operator new `allowed` times more, then bad_alloc.
class NoMemory {
 public:
  static constexpr bool kWorks = POLARX_OWN_OPERATOR_NEW != 0;  // else it does nothing
  explicit NoMemory(int allowed = 0);
  ~NoMemory();
  NoMemory(const NoMemory&) = delete;
  NoMemory& operator=(const NoMemory&) = delete;
};

}  // namespace polarx
