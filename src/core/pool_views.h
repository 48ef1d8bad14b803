// The rows of the views, from the book-keeping; pure functions, called on the main thread.
#pragma once

#include <string>
#include <vector>

#include "core/pool_book.h"
#include "core/protocol.h"

namespace polarx {

// Turns the steady clock into the time of day: one pair of readings taken together.
struct WallClock {
  TimePoint steady{};
  std::int64_t unix_microseconds = 0;
};

// "2026-01-31 23:59:59.123456+00", which timestamptz reads under every DateStyle; NULL for a point
// in time that never was.
std::optional<std::string> TimestampText(TimePoint time, const WallClock& clock);

// A text array literal: {"a","b"}.
std::string ArrayText(const std::vector<std::string>& values);

protocol::Row NodeRow(const Node& node, const WallClock& clock);
// How many are parked is as of the last CountParked.
protocol::Row PoolRow(const Pool& pool, const WallClock& clock);
// `session_pid`: of the session that has it, 0: none.
protocol::Row ConnectionRow(const Slot& slot, int session_pid, const WallClock& clock);
protocol::Row StatsRow(const RequestCounters& counters, TimePoint since,
                       const EventCounters& events, const WallClock& clock);

// The figures of one pool's stat line since the last one.
PoolFigures FiguresSinceLastLine(const Pool& pool);

}  // namespace polarx
