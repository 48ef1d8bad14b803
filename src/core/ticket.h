// A request of a session that waits for connections; owned by the main thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/node.h"
#include "core/parking.h"
#include "core/slot.h"
#include "core/time.h"

namespace polarx {

class Pool;
struct TicketGroup;

using TicketId = std::uint64_t;  // ascending in order of arrival
inline constexpr TicketId kNoTicket = ~TicketId{0};

// It stands in the queue of every pool that it wants a slot of.
struct Ticket {
  struct Want {
    NodeId node = 0;
    RoleId role = 0;
    Pool* pool = nullptr;
    bool restricted = true;  // the slot's connection must have used its password
  };
  TicketId id = 0;
  SessionId session = 0;
  std::uint32_t request = 0;  // the session's own number
  TimePoint arrived_at{};
  bool patient = false;        // has a queue_timeout
  bool waited = false;         // could not be served in the turn it came
  bool sets = false;           // its session sets parameters on what it gets
  LeaseCell* cells = nullptr;  // kCellsOfASession of its session; null: it cannot park
  std::vector<Want> wants;     // of different nodes

  // RequestQueue alone changes these.
  TicketGroup* group = nullptr;         // of the tickets for the same pools
  TimePoint answer_by = kNever;         // it is told the reason then
  TimePoint answer_by_late{};           // or then, if slots come back that it waits for
  bool awaits_attempt = false;          // its answer was put off for an attempt of its own
  TimePoint paused_at{};                // a node of it is paused since then; unset: none is
  mutable std::size_t last_lacked = 0;  // of its wants, when that was looked at last

  bool single() const { return wants.size() == 1; }
};

}  // namespace polarx
