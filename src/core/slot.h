// One datanode connection of a pool, as the book-keeping sees it; owned by the main thread.
#pragma once

#include <cstdint>
#include <list>
#include <optional>

#include "core/node.h"
#include "core/parameter_sets.h"
#include "core/parking.h"
#include "core/time.h"

namespace polarx {

using SlotId = std::uint64_t;     // never used twice in a worker's life
using LeaseId = std::uint64_t;    // one for every hand-out, never used twice; 0: none
using SessionId = std::uint64_t;  // never used twice in a worker's life; 0: none

// A state is the list of its pool that the slot is in; SlotTable::Move alone changes both.
enum class SlotState : std::uint8_t {
  kConnecting,
  kWarming,
  kIdle,
  kLeased,
  kResetting,
  kChecking,
  kClosing,
};
inline constexpr int kSlotStates = 7;
const char* SlotStateName(SlotState state);

enum class CloseReason : std::uint8_t {
  kNone,       // stays
  kIdle,       // unused for pool_conn_keepalive, or given up for another pool of the node
  kLifetime,   // older than pool_session_max_lifetime
  kMemory,     // above pool_session_memory_limit
  kError,      // broken, failed to reset, or left in an unknown state
  kObsolete,   // its node or mapping changed
  kCleaned,    // clean() asked for it
  kRequested,  // its borrower asked for it
};

class Pool;
struct Slot;

// What the engine knows of the datanode connection once it is open.
struct Connection {
  int thread = 0;   // worker thread that owns it
  int socket = -1;  // valid from connected until it is closing
  int remote_pid = 0;
  bool password_used = false;
  // Requests waited when it was ordered, in its pool and on its node; ConnectGate sets these.
  bool pool_waited = false;
  bool node_waited = false;
  SharedParameters parameters;  // as the datanode last reported them; null until connected
};

// Who holds the slot; set while leased.
struct Lease {
  LeaseId id = 0;
  SessionId session = 0;
  RoleId role = 0;
  bool recalled = false;   // the session was told to give it back
  bool warned = false;     // that it is held for long was told
  TimePoint held_since{};  // as far as is known, for a parked one cannot be seen being taken again
  std::list<Slot*>::iterator place;  // among those of its node; LeaseTable alone changes it
};

// Where the session may park its lease.
struct Parking {
  LeaseCell* cell = nullptr;  // null: nowhere
  std::uint32_t cell_index = protocol::kNoCell;
  bool barred = false;                   // the cell says that it is not to be parked any more
  std::uint32_t retakes = 0;             // those that are counted
  std::uint32_t retakes_maintained = 0;  // at the last round of maintenance
  TimePoint parked_since{};              // of maintenance: unused since; unset: it was not parked
  std::uint32_t held_us = 0;             // as the session told when it was taken; 0: it did not
  bool reset_sent = false;               // by the session that it was taken from
};

// What has become of the connection with time and use, and when that is looked at.
struct Age {
  TimePoint created_at{};
  TimePoint expires_at = kNever;  // expiring from then on
  bool expiring = false;          // it has no place in the minima; SlotTable alone changes it
  bool is_new = true;             // neither warm nor back from a lease; SlotTable alone changes it
  std::uint64_t leases = 0;       // hand-outs so far

  std::optional<std::int64_t> memory_bytes;  // of the datanode session; unset: not measured
  TimePoint checked_at{};                    // opened or measured
  TimePoint check_at = kNever;               // to be measured then
};

struct Slot {
  SlotId id = 0;
  Pool* pool = nullptr;
  SlotState state = SlotState::kConnecting;  // SlotTable alone changes it
  std::list<Slot>::iterator self;            // SlotTable alone changes it
  TimePoint state_since{};
  TimePoint idle_since{};                   // last release or, before the first, opening
  CloseReason doomed = CloseReason::kNone;  // to be closed when it comes back

  Connection connection;
  Lease lease;
  Parking parking;
  Age age;

  bool parked() const {
    return parking.cell != nullptr && parking::IsParked(parking::StateOf(*parking.cell, lease.id));
  }
};

}  // namespace polarx
