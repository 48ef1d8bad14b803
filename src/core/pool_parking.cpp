// Leases that sessions keep but do not use: who waits is told, and what is needed is taken back; on
// the main thread.
#include <algorithm>
#include <utility>

#include "core/pool_book.h"

namespace polarx {

// How many tickets of the pool wait for more than what is idle or under way. Before the cells of
// its leases are looked at.
void PoolBook::SetLacking(Pool* pool, int lacking) {
  Node* node = pool->node;
  node->lacking += lacking - pool->lacking;
  pool->lacking = lacking;
  Publish(node);
}

void PoolBook::Publish(Node* node) {
  const auto waiting = static_cast<std::uint32_t>(node->lacking + (node->paused ? 1 : 0));
  if (node->cell == nullptr || node->published == waiting) {
    return;
  }
  node->published = waiting;
  node->cell->waiting.store(waiting);
  if (waiting == 0) {
    for (Pool* pool : node->pools) {
      pool->none_parked = false;
    }
  }
}

void PoolBook::AllotNodeCell(Node* node) {
  for (std::size_t index = 0; index < cells_.size(); ++index) {
    if (!cells_used_[index]) {
      cells_used_[index] = true;
      node->cell = &cells_[index];
      node->cell_index = static_cast<std::uint32_t>(index);
      node->cell->waiting.store(0);
      node->cell->idle.store(static_cast<std::uint32_t>(node->count(SlotState::kIdle)));
      Publish(node);
      return;
    }
  }
}

// Where nobody waits the lease may come back through its cell, which is looked at soon.
void PoolBook::AllotCell(Slot* slot, LeaseCell* cells, TimePoint now) {
  slot->parking.cell = nullptr;
  slot->parking.cell_index = protocol::kNoCell;
  slot->parking.retakes = slot->parking.retakes_maintained = 0;
  slot->parking.barred = false;
  slot->parking.parked_since = TimePoint{};
  if (cells == nullptr || slot->pool->node->cell == nullptr) {
    return;
  }
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

// How often it was taken again.
void PoolBook::CountRetakes(Slot* slot) {
  if (slot->parking.cell == nullptr) {
    return;
  }
  const std::uint32_t retakes = slot->parking.cell->retakes.load();
  const std::uint32_t more = retakes - slot->parking.retakes;
  slot->parking.retakes = retakes;
  slot->age.leases += more;
  slot->pool->counters.acquired += more;
  slot->pool->counters.hits += more;
}

// The slot is nobody's lease any more; it still stands among the leased.
void PoolBook::EndLease(Slot* slot, TimePoint now) {
  CountRetakes(slot);
  if (slot->parking.cell != nullptr) {
    parking::Free(slot->parking.cell, slot->lease.id);
    slot->parking.cell = nullptr;
  }
  recent_grants_.Remove(slot->lease.id);
  leases_.erase(slot->lease.id);
  slot->lease.id = 0;
  slot->lease.session = 0;
  slot->idle_since = now;
  slot->parking.parked_since = TimePoint{};
  MarkDirty(slot->pool);
}

// A lease ends that was in use: of one that was parked, the last time of that counts.
void PoolBook::EndUse(Slot* slot, TimePoint now) {
  const std::uint32_t held_us =
      slot->parking.cell != nullptr ? slot->parking.cell->held_us.load() : 0;
  slot->pool->hold_time.Add(held_us != 0 ? Duration(held_us) : now - slot->state_since);
  EndLease(slot, now);
}

// The cell's state at that: a lease that was taken waits among the leased for what becomes of it.
bool PoolBook::OnTaken(Slot* slot, parking::State state, TimePoint now) {
  if (state == parking::State::kGone) {
    return false;
  }
  slot->parking.reset_sent = state == parking::State::kResetSent;
  events_->Taken(*slot);
  EndUse(slot, now);
  return true;
}

// Takes the slot back if it is parked.
bool PoolBook::TakeParked(Slot* slot, TimePoint now) {
  return slot->parking.cell != nullptr &&
         OnTaken(slot, parking::Take(slot->parking.cell, slot->lease.id), now);
}

// --- given back through the cell ----------------------------------------------------------------

void PoolBook::OnReturned(Slot* slot, TimePoint now) {
  events_->Taken(*slot);
  EndUse(slot, now);
  ComeBack(slot, protocol::ReleaseKind::kClean, now);
}

bool PoolBook::CollectReturned(LeaseId lease, TimePoint now) {
  Slot* slot = FindLease(lease);
  const bool returned = slot != nullptr && slot->parking.cell != nullptr &&
                        parking::TakeReturned(slot->parking.cell, lease);
  if (returned) {
    OnReturned(slot, now);
  }
  return returned;
}

int PoolBook::CollectReturned(TimePoint now) {
  int count = 0;
  const auto& grants = recent_grants_.entries();
  for (auto grant = grants.begin(); grant != grants.end();) {
    const LeaseId lease = (grant++)->second;
    count += CollectReturned(lease, now) ? 1 : 0;
  }
  return count;
}

void PoolBook::LookAgain(TimePoint now) {
  while (const auto lease = recent_grants_.TakeDue(now)) {
    Slot* slot = leases_.at(*lease);
    if (parking::LookAgain(slot->parking.cell, *lease)) {
      OnReturned(slot, now);
    }
  }
}

// --- parked -------------------------------------------------------------------------------------

// How long a slot is waited for that is about to be idle: as long as another one takes to open.
Duration PoolBook::Patience(const Node& node) {
  constexpr Duration kShortest = std::chrono::milliseconds(5);
  constexpr Duration kLongest = std::chrono::seconds(1);
  return std::clamp(node.connect_time, kShortest, kLongest);
}

// Its session has sent the reset, and has not come back for it within that time.
bool PoolBook::Rested(const Slot& slot, TimePoint now) {
  if (slot.parking.cell == nullptr ||
      parking::StateOf(*slot.parking.cell, slot.lease.id) != parking::State::kResetSent) {
    return false;
  }
  const std::uint32_t rest = parking::ClockMs(now) - slot.parking.cell->sent_ms.load();
  return std::chrono::milliseconds(static_cast<std::int32_t>(rest)) >= Patience(*slot.pool->node);
}

bool PoolBook::MayTake(const Slot& slot, Which which, TimePoint now) {
  switch (which) {
    case Which::kRested:
      return Rested(slot, now);
    case Which::kUnused:
      return (slot.parking.parked_since != TimePoint{} &&
              slot.parking.cell->retakes.load() == slot.parking.retakes_maintained) ||
             Rested(slot, now);
    case Which::kAny:
      return true;
  }
  return false;
}

// The one longest leased of those that are parked and may be taken. Null: none. While tickets wait
// none is parked anew.
Slot* PoolBook::TakeParked(Pool* pool, Which which, TimePoint now) {
  if (pool->none_parked) {
    return nullptr;
  }
  std::list<Slot>& leased = pool->list(SlotState::kLeased);
  for (std::size_t left = leased.size(); left > 0; --left) {
    Slot* slot = &leased.back();
    if (MayTake(*slot, which, now) && TakeParked(slot, now)) {
      return slot;
    }
    slots_.MoveBehind(slot);  // looked at last the next time
  }
  pool->none_parked = which == Which::kAny && pool->node->published > 0;
  return nullptr;
}

// Of the other pools of a full node, for a ticket older than theirs: closed.
bool PoolBook::EvictParked(Pool* beneficiary, TimePoint now) {
  for (Pool* pool : beneficiary->node->pools) {
    if (pool == beneficiary ||
        (!pool->queue.empty() && pool->queue.front()->id < beneficiary->queue.front()->id)) {
      continue;
    }
    if (Slot* slot = TakeParked(pool, Which::kAny, now); slot != nullptr) {
      CloseSlot(slot, CloseReason::kIdle, now);
      sizer_.BlockRefill(beneficiary->node, now);
      return true;
    }
  }
  return false;
}

void PoolBook::TakeAllParked(Pool* pool, TimePoint now) {
  while (Slot* slot = TakeParked(pool, Which::kAny, now)) {
    ComeBack(slot, protocol::ReleaseKind::kClean, now);
  }
}

bool PoolBook::KeepsLease(const Slot& slot) {
  return slot.parking.cell == nullptr ||
         parking::TakeOrRecall(slot.parking.cell, slot.lease.id) == parking::State::kGone;
}

// Takes the slot back if it is parked; if it is in use, it will not be parked any more.
bool PoolBook::TakeBack(Slot* slot, TimePoint now) {
  return slot->parking.cell != nullptr &&
         OnTaken(slot, parking::TakeOrRecall(slot->parking.cell, slot->lease.id), now);
}

void PoolBook::CountParked() {
  for (auto& [id, pool] : pools_) {
    pool->parked = 0;
    for (Slot& slot : pool->list(SlotState::kLeased)) {
      CountRetakes(&slot);
      pool->parked += slot.parked() ? 1 : 0;
    }
  }
}

// Notes which of the leases have not been used since the last time, and takes back those that are
// wanted elsewhere, due for something, or reset.
void PoolBook::MaintainParked(Pool* pool, TimePoint now) {
  const std::chrono::seconds keepalive = settings_.pool_conn_keepalive;
  const Limits limits = pool->node->limits;
  int wanted = pool->node->total() >= limits.max_size
                   ? limits.min_free - pool->sizes().idle - pool->sizes().resetting
                   : 0;
  std::list<Slot>& leased = pool->list(SlotState::kLeased);
  for (auto place = leased.end(); place != leased.begin();) {
    Slot* slot = &*--place;
    if (slot->parking.cell == nullptr) {
      continue;
    }
    CountRetakes(slot);
    const bool used = std::exchange(slot->parking.retakes_maintained, slot->parking.retakes) !=
                      slot->parking.retakes;
    pool->last_acquired = used ? now : pool->last_acquired;
    if (!slot->parked()) {
      slot->parking.parked_since = TimePoint{};
      continue;
    }
    const bool unused = slot->parking.parked_since != TimePoint{} && !used;
    if (!unused) {
      slot->parking.parked_since = now;
    }
    const bool expired =
        keepalive >= std::chrono::seconds(0) && now - slot->parking.parked_since >= keepalive;
    const bool spare = unused && (wanted > 0 || Rested(*slot, now));
    if ((expired || spare) && TakeParked(slot, now)) {
      --wanted;
      ++place;  // the slot leaves the list
      ComeBack(slot, protocol::ReleaseKind::kClean, now);
    }
  }
}

}  // namespace polarx
