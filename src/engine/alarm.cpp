// The alarm of a thread that waits in epoll.
#include "engine/alarm.h"

#include <sys/timerfd.h>

#include <chrono>
#include <ctime>

namespace polarx {

Alarm::Alarm() : fd_(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)) {}

void Alarm::Set(TimePoint when) {
  const auto since = when.time_since_epoch();  // Clock counts as CLOCK_MONOTONIC does
  const auto seconds = std::chrono::floor<std::chrono::seconds>(since);
  itimerspec at{};
  at.it_value.tv_sec = static_cast<time_t>(seconds.count());
  at.it_value.tv_nsec = std::chrono::nanoseconds(since - seconds).count();
  (void)::timerfd_settime(fd_.get(), TFD_TIMER_ABSTIME, &at, nullptr);
}

}  // namespace polarx
