// A point in time as a descriptor, for one that is nearer than the milliseconds of a wait.
#pragma once

#include "core/time.h"
#include "engine/unique_fd.h"

namespace polarx {

// A timerfd, to be waited for with EPOLLIN | EPOLLET, and never read. One thread's.
class Alarm {
 public:
  Alarm();  // fd() is -1 where the system refuses a descriptor: to be checked at start
  int fd() const { return fd_.get(); }
  // Once, then; what was set before is forgotten.
  void Set(TimePoint when);

 private:
  UniqueFd fd_;
};

}  // namespace polarx
