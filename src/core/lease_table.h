// Who holds which slot since when, and the cells in shared memory through which a session parks a
// lease or gives it back. Owned by the main thread; only the cells are seen by sessions.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "core/pool.h"
#include "core/timer_queue.h"

namespace polarx {

// Which of the parked leases may be taken.
enum class TakeScope : std::uint8_t {
  kRested,          // as good as idle: reset, and their sessions have not come back for them
  kRestedOrUnused,  // and those that were not used since the last round of maintenance
  kAllParked,
};

// A slot is leased exactly if it has a lease, a cell belongs to one lease, and a lease's number is
// never used twice. What is published for sessions is computed by others and stored here.
class LeaseTable {
 public:
  struct Holder {
    SessionId session = 0;
    RoleId role = 0;
    LeaseCell* cells = nullptr;  // kCellsOfASession of the session; null: it cannot park
  };

  // `node_cells`: for the first nodes, so many; leases on others are not parked.
  explicit LeaseTable(std::span<NodeCell> node_cells)
      : node_cells_(node_cells), used_(node_cells.size()) {}
  LeaseTable(const LeaseTable&) = delete;
  LeaseTable& operator=(const LeaseTable&) = delete;

  // --- nodes ----------------------------------------------------------------------------------
  // Gives the node a cell if one is left.
  void AllotNodeCell(Node* node);
  // Takes the cell of a node that is gone back.
  void FreeNodeCell(const Node& node);
  // Shows sessions how many wait for the node: nobody parks while that is not 0. False: sessions
  // see that number already, or the node has no cell.
  static bool Publish(Node* node, std::uint32_t waiting);

  // --- leases ---------------------------------------------------------------------------------
  // The slot, which has just become a leased one, is the holder's from now on. Where nobody waits
  // for the node, the lease may come back through its cell: TakeRecentGrant finds it.
  void Begin(Slot* slot, const Holder& holder, TimePoint now);
  // The slot is nobody's lease any more. Returns how long it was in use, the last time that its
  // session took it.
  Duration End(Slot* slot, TimePoint now);
  // Returns null if no slot has this lease.
  Slot* Find(LeaseId lease) const;
  const std::unordered_map<LeaseId, Slot*>& all() const { return leases_; }

  // --- cells ----------------------------------------------------------------------------------
  // Adds to the pool's counters how often the session took its parked lease again. True: it did so
  // since the last call.
  static bool CountRetakes(Slot* slot);
  // The slot's lease is the pooler's if it was parked; else kGone is returned, and nothing changes.
  static parking::State TakeParked(Slot* slot);
  // The same, but a lease in use is not parked any more, nor given back through its cell.
  static parking::State TakeOrBar(Slot* slot);
  // The same for a pooler that ends: what becomes of the lease is of no interest. True: it is in
  // use, and stays its session's.
  static bool BarFromParking(const Slot& slot);
  // True: the lease was given back through its cell, and is the pooler's.
  static bool TakeReturned(Slot* slot);
  // Is the parked lease one of those? `rest`: how long a session is expected to come back for it.
  static bool IsInScope(const Slot& slot, TakeScope scope, Duration rest, TimePoint now);
  static bool HasRested(const Slot& slot, Duration rest, TimePoint now);

  // Grants whose cells are not looked at yet, oldest first.
  const TimerQueue<LeaseId>::Entries& recent_grants() const { return recent_grants_.entries(); }
  // The next slot whose cell is due to be looked at and whose lease was given back through it;
  // null: there is none. After that look a lease comes back by a message.
  Slot* TakeRecentGrant(TimePoint now);
  TimePoint NextDeadline() const { return recent_grants_.Next(); }

 private:
  void AllotCell(Slot* slot, LeaseCell* cells, TimePoint now);

  std::span<NodeCell> node_cells_;
  std::vector<bool> used_;
  std::unordered_map<LeaseId, Slot*> leases_;
  TimerQueue<LeaseId> recent_grants_;
  LeaseId next_ = 1;
};

}  // namespace polarx
