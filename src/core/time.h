// Points in time and durations as every part of the pooler passes them, on any thread.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <limits>

namespace polarx {

using Clock = std::chrono::steady_clock;
using Duration = std::chrono::microseconds;
using TimePoint = std::chrono::time_point<Clock, Duration>;

// When a transaction began: microseconds on the server's own clock, as PostgreSQL tells it to all
// sessions. For an order alone: that clock may be set.
using BegunAt = std::uint64_t;

// "No deadline": later than every other point in time.
inline constexpr TimePoint kNever = TimePoint::max();

inline TimePoint Now() { return std::chrono::time_point_cast<Duration>(Clock::now()); }

// Whole milliseconds from now to `deadline`, rounded up: 0 if it is past, at most `most`.
inline int MillisecondsUntil(TimePoint deadline, int most = std::numeric_limits<int>::max()) {
  if (deadline == kNever) {
    return most;
  }
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Now()).count();
  return static_cast<int>(std::clamp<decltype(left)>(left, 0, most));
}

// When something that is done at an interval is next to be done: never where the interval is below
// 0; 0 stands for the shortest.
inline TimePoint AfterInterval(TimePoint now, std::chrono::seconds interval) {
  constexpr Duration kShortest = std::chrono::milliseconds(100);
  return interval.count() < 0 ? kNever : now + std::max<Duration>(interval, kShortest);
}

}  // namespace polarx
