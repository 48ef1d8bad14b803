// Who holds which slot since when, and the cells of leases; on the main thread.
#include "core/lease_table.h"

#include <cassert>
#include <utility>

namespace polarx {
namespace {

// A session that attaches anew clears the cells of its backend, and another lease may have the cell
// then.
bool OwnsCell(const Slot& slot) {
  return slot.parking.cell != nullptr &&
         parking::StateOf(*slot.parking.cell, slot.lease.id) != parking::State::kGone;
}

// True: there were some since the last call. The cell must be the lease's.
bool AddRetakes(Slot* slot) {
  const std::uint32_t retakes = slot->parking.cell->retakes.load();
  assert(retakes >= slot->parking.retakes);
  const std::uint32_t more = retakes - std::exchange(slot->parking.retakes, retakes);
  slot->age.leases += more;
  slot->pool->counters.acquired += more;
  slot->pool->counters.hits += more;
  return more > 0;
}

// The cell is free, and what stands in it beside its word is the lease's until it is allotted
// again.
void LeaveCell(Slot* slot) {
  (void)AddRetakes(slot);
  slot->parking.held_us = slot->parking.cell->held_us.load();
  slot->parking.cell = nullptr;
}

// `state` of the cell when it was taken.
parking::State LeaveIfTaken(Slot* slot, parking::State state) {
  if (state != parking::State::kGone) {
    LeaveCell(slot);
  }
  return state;
}

}  // namespace

void LeaseTable::AllotNodeCell(Node* node) {
  assert(node->cell == nullptr);
  for (std::size_t index = 0; index < node_cells_.size(); ++index) {
    if (!used_[index]) {
      used_[index] = true;
      node->cell = &node_cells_[index];
      node->cell_index = static_cast<std::uint32_t>(index);
      node->cell->waiting.store(node->published);
      node->cell->idle.store(node->count(SlotState::kIdle) > 0 ? 1 : 0);
      return;
    }
  }
}

void LeaseTable::FreeNodeCell(const Node& node) {
  if (node.cell != nullptr) {
    assert(used_[node.cell_index]);
    used_[node.cell_index] = false;
  }
}

bool LeaseTable::Publish(Node* node, std::uint32_t waiting) {
  if (node->cell == nullptr || node->published == waiting) {
    return false;
  }
  node->waiting_period += node->published == 0 ? 1 : 0;
  node->published = waiting;
  node->cell->waiting.store(waiting);
  return true;
}

void LeaseTable::Begin(Slot* slot, const Holder& holder, TimePoint now) {
  assert(slot->state == SlotState::kLeased && slot->lease.id == 0);
  slot->lease = {};
  slot->lease.id = next_++;
  slot->lease.session = holder.session;
  slot->lease.role = holder.role;
  slot->lease.held_since = now;
  slot->parking = {};
  leases_.emplace(slot->lease.id, slot);
  std::list<Slot*>& of_node = slot->pool->node->leases_;
  slot->lease.place = of_node.insert(of_node.end(), slot);
  ++slot->age.leases;
  if (holder.cells != nullptr && slot->pool->node->cell != nullptr) {
    AllotCell(slot, holder.cells, now);
  }
}

void LeaseTable::AllotCell(Slot* slot, LeaseCell* cells, TimePoint now) {
  const bool fresh = slot->pool->node->published == 0;
  for (std::uint32_t index = 0; index < kCellsOfASession; ++index) {
    if (parking::Allot(&cells[index], slot->lease.id, fresh)) {
      cells[index].held_us.store(0);
      slot->parking.cell = &cells[index];
      slot->parking.cell_index = index;
      if (fresh) {
        recent_grants_.Set(slot->lease.id, now + parking::kFreshTime);
      }
      return;
    }
  }
}

Duration LeaseTable::End(Slot* slot, TimePoint now) {
  assert(Find(slot->lease.id) == slot);
  if (OwnsCell(*slot)) {
    parking::Free(slot->parking.cell, slot->lease.id);
    LeaveCell(slot);
  }
  const std::uint32_t told_us = slot->parking.held_us;
  const Duration held = told_us != 0 ? Duration(told_us) : now - slot->lease.held_since;
  slot->parking.cell = nullptr;
  slot->parking.parked_since = TimePoint{};
  recent_grants_.Remove(slot->lease.id);
  leases_.erase(slot->lease.id);
  slot->pool->node->leases_.erase(slot->lease.place);
  slot->lease.id = 0;
  slot->lease.session = 0;
  return held;
}

Slot* LeaseTable::Find(LeaseId lease) const {
  const auto found = leases_.find(lease);
  return found == leases_.end() ? nullptr : found->second;
}

bool LeaseTable::CountRetakes(Slot* slot) { return OwnsCell(*slot) && AddRetakes(slot); }

parking::State LeaseTable::TakeParked(Slot* slot) {
  return slot->parking.cell == nullptr
             ? parking::State::kGone
             : LeaveIfTaken(slot, parking::Take(slot->parking.cell, slot->lease.id));
}

parking::State LeaseTable::TakeOrBar(Slot* slot) {
  return slot->parking.cell == nullptr
             ? parking::State::kGone
             : LeaveIfTaken(slot, parking::TakeOrRecall(slot->parking.cell, slot->lease.id));
}

bool LeaseTable::BarFromParking(const Slot& slot) {
  return slot.parking.cell == nullptr ||
         parking::TakeOrRecall(slot.parking.cell, slot.lease.id) == parking::State::kGone;
}

bool LeaseTable::TakeReturned(Slot* slot) {
  const bool returned =
      slot->parking.cell != nullptr && parking::TakeReturned(slot->parking.cell, slot->lease.id);
  return LeaveIfTaken(slot, returned ? parking::State::kReturned : parking::State::kGone) !=
         parking::State::kGone;
}

bool LeaseTable::HasRested(const Slot& slot, Duration rest, TimePoint now) {
  if (slot.parking.cell == nullptr ||
      parking::StateOf(*slot.parking.cell, slot.lease.id) != parking::State::kResetSent) {
    return false;
  }
  const std::uint32_t rested = parking::ClockMs(now) - slot.parking.cell->sent_ms.load();
  return std::chrono::milliseconds(static_cast<std::int32_t>(rested)) >= rest;
}

bool LeaseTable::IsInScope(const Slot& slot, TakeScope scope, Duration rest, TimePoint now) {
  switch (scope) {
    case TakeScope::kRested:
      return HasRested(slot, rest, now);
    case TakeScope::kRestedOrUnused:
      return (slot.parking.parked_since != TimePoint{} &&
              slot.parking.cell->retakes.load() == slot.parking.retakes_maintained) ||
             HasRested(slot, rest, now);
    case TakeScope::kAllParked:
      return true;
  }
  return false;
}

Slot* LeaseTable::TakeRecentGrant(TimePoint now) {
  while (const auto lease = recent_grants_.TakeDue(now)) {
    Slot* slot = leases_.at(*lease);
    if (parking::LookAgain(slot->parking.cell, *lease)) {
      LeaveCell(slot);
      return slot;
    }
  }
  return nullptr;
}

}  // namespace polarx
