// Points in time and durations as every part of the pooler passes them, on any thread.
#pragma once

#include <chrono>

namespace polarx {

using Clock = std::chrono::steady_clock;
using Duration = std::chrono::microseconds;
using TimePoint = std::chrono::time_point<Clock, Duration>;

// "No deadline": later than every other point in time.
inline constexpr TimePoint kNever = TimePoint::max();

inline TimePoint Now() { return std::chrono::time_point_cast<Duration>(Clock::now()); }

}  // namespace polarx
