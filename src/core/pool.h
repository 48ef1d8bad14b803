// A pool with its slots, and the node that it belongs to; owned by the main thread.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <list>
#include <map>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "core/histogram.h"
#include "core/hold_off.h"
#include "core/node.h"
#include "core/policy.h"
#include "core/slot.h"

namespace polarx {

using PoolId = std::uint64_t;

struct Node;
struct Ticket;

struct PoolCounters {
  std::uint64_t acquired = 0;  // leases
  std::uint64_t hits = 0;      // leases that were served at once
  std::uint64_t connects = 0;
  std::uint64_t connect_failures = 0;
  std::uint64_t rejected = 0;  // requests turned away because the pool was full
  std::uint64_t closed_idle = 0;
  std::uint64_t closed_lifetime = 0;
  std::uint64_t closed_memory = 0;
  std::uint64_t closed_error = 0;
};

// How the memory of a pool's datanode sessions can be measured.
enum class MemorySource : std::uint8_t {
  kUnknown,   // not asked yet
  kFunction,  // pooler.session_memory() of the extension at the datanode
  kView,      // pg_backend_memory_contexts
  kNone,      // the remote user may do neither
};

// What has become of a pool's slots in a dispatch so far; Supplier alone uses it.
struct Course {
  int claimed = 0;  // idle slots that older tickets for several nodes wait with
  int soon = 0;     // slots on their way that no ticket counts on
  int late = 0;     // connects that take long, likewise
};

// What a pool may wait for until its node has room.
enum class HeldUp : std::uint8_t { kOpening, kWarming };
inline constexpr std::size_t kHeldUps = 2;

// Tickets for the same pools; RequestQueue alone changes it.
struct TicketGroup {
  std::map<std::uint64_t, Ticket*> tickets;  // by id, oldest first
  std::vector<Pool*> pools;
};

class Pool {
 public:
  Pool(PoolId id, Node* node, const MappingDefinition& mapping);
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int count(SlotState state) const { return static_cast<int>(list(state).size()); }
  std::list<Slot>& list(SlotState state) { return lists_[static_cast<int>(state)]; }
  const std::list<Slot>& list(SlotState state) const { return lists_[static_cast<int>(state)]; }
  int total() const { return total_; }
  Sizes sizes() const;
  // Without expiring slots: what the minima count.
  Sizes lasting_sizes() const;
  // Without expiring, new and closing slots: what can stand in for expiring ones.
  Sizes settled_sizes() const;
  int expiring() const { return Sum(expiring_); }
  // Those of them that are idle, oldest first.
  const std::map<SlotId, Slot*>& expiring_idle() const { return expiring_idle_; }
  // Of the node's hold-off and the pool's own that is active or proven; of both, the one that has
  // failed last; null: neither is.
  const HoldOff* ActiveHoldOff() const;
  const HoldOff* ProvenHoldOff() const;

  const PoolId id;
  Node* const node;
  const Options options;  // with the node, the pool's identity
  const std::string remote_user;
  const std::string remote_database;

  // PoolDirectory alone changes these.
  std::vector<std::string> mapped_roles;
  bool obsolete = false;  // retired: no mapping leads here any more

  // RequestQueue alone changes these.
  std::map<std::uint64_t, Ticket*> queue;  // by id, oldest first
  TicketGroup singles;                     // of them, those for this node alone
  std::vector<TicketGroup*> groups;        // those, and the groups of tickets for several nodes
  int kept = 0;                            // idle slots kept for the request that has the token

  // Dispatcher alone changes these.
  bool dirty = false;                    // it is to be looked at
  std::array<bool, kHeldUps> held_up{};  // it stands in its node's list
  std::uint64_t dispatch = 0;            // the last one that it had a turn in
  bool over = false;                     // and nothing was left for its tickets

  bool ever_acquired = false;
  TimePoint last_acquired{};
  int uncovered = 0;           // tickets that nothing is under way for, as of the last turn
  Course course;               // of the last dispatch that it had a turn in
  std::uint64_t searched = 0;  // the waiting period in which none of its leases was parked
  // Was none of its leases parked, and will none be while requests wait?
  bool none_parked() const;

  // ConnectGate alone changes these.
  HoldOff hold_off;
  bool login_refused = false;  // by class 28 or 3D: nothing is tried until a request asks
  bool died_unused = false;    // its hold-off comes from connections that ended before their use
  TimePoint trial_until{};     // ... the first one since has to last so long
  int parked = 0;              // of its leased slots, when they were last counted
  MemorySource memory_source = MemorySource::kUnknown;
  TimePoint last_check{};   // SlotUpkeep: the last of the postponed memory checks
  std::deque<SlotId> cold;  // not warmed up so far, oldest first; some have been lent or are gone
  bool warmup_failed = false;        // and that was logged
  TimePoint warmup_blocked_until{};  // a warm-up has cost a connection
  PoolCounters counters;
  Histogram acquire_time;
  Histogram hold_time;
  PoolCounters printed_counters;  // as of the last stat line
  Histogram printed_acquire_time;

 private:
  friend class SlotTable;  // it alone changes these

  using Counts = std::array<int, kSlotStates>;
  static int Sum(const Counts& counts) { return std::accumulate(counts.begin(), counts.end(), 0); }
  static Sizes Without(Sizes sizes, const Counts& counts);

  std::array<std::list<Slot>, kSlotStates> lists_;
  int total_ = 0;
  Counts expiring_{};
  Counts new_{};
  std::map<SlotId, Slot*> expiring_idle_;
  std::pair<TimePoint, SlotId> idle_end_;  // since when the last one is idle, and which; 0: none
};

// A datanode with what all its pools share.
struct Node {
  // PoolDirectory alone changes these.
  NodeDefinition definition;
  bool obsolete = false;  // gone from the catalog
  std::vector<Pool*> pools;
  bool paused = false;  // no acquires, no connects
  int survivors = 0;    // leases that sessions still hold from an earlier worker
  Limits limits;        // that hold now: its own where it has any, else the settings'

  bool memory_hidden = false;      // that some pool's memory cannot be measured was logged
  int uncovered = 0;               // tickets, over its pools
  double ping_ms = -1;             // of the last successful ping; -1: none
  TimePoint fill_blocked_until{};  // PoolSizer: minima are not refilled until then

  // Dispatcher alone changes these.
  std::uint64_t dispatch = 0;  // the last one that it had a part in
  std::uint64_t entered = 0;   // the ticket with which the last one of its pools came in
  std::array<std::deque<Pool*>, kHeldUps> held_up;

  std::uint64_t supplied = 0;  // Supplier: the dispatch of which the next is
  int rooms = 0;               // ... closing slots that no ticket counts on
  std::uint64_t judged = 0;    // Refuser: the dispatch in which it looked at its requests
  std::uint64_t searched = 0;  // the waiting period in which none of its leases was parked
  bool none_parked() const { return published > 0 && searched == waiting_period; }
  // Is every slot lent, in use, and not to be taken back?
  bool has_nothing_to_give() const {
    return total() >= limits.max_size && count(SlotState::kIdle) == 0 &&
           (none_parked() || cell == nullptr);
  }

  // LeaseTable alone changes these.
  NodeCell* cell = nullptr;  // where sessions see who waits; null: leases on it are not parked
  std::uint32_t cell_index = protocol::kNoCell;
  std::uint32_t published = 0;       // what stands in the cell
  std::uint64_t waiting_period = 0;  // how often that has changed from none to some

  // RequestQueue alone changes these.
  std::map<std::uint64_t, Pool*> heads;      // its pools with tickets, by the oldest of these
  std::map<std::uint64_t, Ticket*> hurried;  // tickets without queue_timeout, by id
  int waiting = 0;                           // tickets in the queues of its pools
  int waiting_single = 0;                    // of these, those for this node alone

  // ConnectGate alone changes these.
  HoldOff hold_off;
  bool known_up = false;    // a connect or ping succeeded since the last failure
  Duration connect_time{};  // of late, to open one connection

  // Over all its pools.
  int count(SlotState state) const { return counts_[static_cast<std::size_t>(state)]; }
  int slots() const { return slots_; }
  // Its pools with idle slots, the one farthest above its minimum first: by negated size, then id.
  const std::map<std::pair<int, PoolId>, Pool*>& pools_with_idle() const { return with_idle_; }
  TimePoint last_returned() const { return last_returned_; }  // when a lease of it ended last
  int leased() const { return count(SlotState::kLeased) + survivors; }
  int total() const { return slots_ + survivors; }
  int lasting_total() const { return total() - expiring_; }
  // The slot whose lease is the oldest of the node's; null: none is leased.
  const Slot* oldest_lease() const { return leases_.empty() ? nullptr : leases_.front(); }

 private:
  friend class SlotTable;  // it alone changes these

  std::array<int, kSlotStates> counts_{};
  int slots_ = 0;
  int expiring_ = 0;
  std::map<std::pair<int, PoolId>, Pool*> with_idle_;
  TimePoint last_returned_{};

  friend class LeaseTable;  // it alone changes this

  std::list<Slot*> leases_;  // oldest first
};

inline bool Pool::none_parked() const {
  return node->published > 0 && searched == node->waiting_period;
}

}  // namespace polarx
