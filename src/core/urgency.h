// How soon connections that come back have to be reset; on the main thread.
#pragma once

#include <cstdint>

#include "core/time.h"

namespace polarx {

enum class Urgency : std::uint8_t {
  kMayWait,  // resets wait for others, at most kResetsMayWait
  kAtOnce,   // requests might soon find no idle connection: resets go to the worker threads now
  kAwaited,  // something waits for a slot: answers are looked for before the main thread sleeps
};

// A worker thread is woken once for several resets, and not at the same time as the session that
// has just got its answer.
inline constexpr Duration kResetsMayWait = std::chrono::microseconds(300);

}  // namespace polarx
