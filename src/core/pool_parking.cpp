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
  if (LeaseTable::Publish(node, waiting) && waiting == 0) {
    node->none_parked = false;
    for (Pool* pool : node->pools) {
      pool->none_parked = false;
    }
  }
}

// The slot is nobody's lease any more; it still stands among the leased. Returns how long it was in
// use.
Duration PoolBook::EndLease(Slot* slot, TimePoint now) {
  const Duration held = leases_.End(slot, now);
  slot->idle_since = now;
  MarkDirty(slot->pool);
  return held;
}

// A lease ends that was in use, or was parked after such use.
void PoolBook::EndUse(Slot* slot, TimePoint now) {
  Histogram& hold_time = slot->pool->hold_time;
  hold_time.Add(EndLease(slot, now));
}

// `state`: of the cell when the lease was taken. That one waits among the leased for what becomes
// of it. False: nothing was taken.
bool PoolBook::EndTaken(Slot* slot, parking::State state, TimePoint now) {
  if (state == parking::State::kGone) {
    return false;
  }
  slot->parking.reset_sent = state == parking::State::kResetSent;
  events_->Taken(*slot);
  EndUse(slot, now);
  return true;
}

// False: the slot is not parked.
bool PoolBook::TakeIfParked(Slot* slot, TimePoint now) {
  return EndTaken(slot, LeaseTable::TakeParked(slot), now);
}

// Takes the slot if it is parked; if it is in use, it will not be parked any more.
bool PoolBook::TakeOrBar(Slot* slot, TimePoint now) {
  return EndTaken(slot, LeaseTable::TakeOrBar(slot), now);
}

// --- given back through the cell ----------------------------------------------------------------

void PoolBook::OnReturned(Slot* slot, TimePoint now) {
  events_->Taken(*slot);
  EndUse(slot, now);
  ComeBack(slot, protocol::ReleaseKind::kClean, now);
}

bool PoolBook::CollectReturned(LeaseId lease, TimePoint now) {
  Slot* slot = FindLease(lease);
  const bool returned = slot != nullptr && LeaseTable::TakeReturned(slot);
  if (returned) {
    OnReturned(slot, now);
  }
  return returned;
}

int PoolBook::CollectReturned(TimePoint now) {
  int count = 0;
  for (auto grant = leases_.recent_grants().begin(); grant != leases_.recent_grants().end();) {
    const LeaseId lease = (grant++)->second;  // its entry may go
    count += CollectReturned(lease, now) ? 1 : 0;
  }
  return count;
}

void PoolBook::LookAtRecentGrants(TimePoint now) {
  while (Slot* slot = leases_.TakeRecentGrant(now)) {
    OnReturned(slot, now);
  }
}

// --- parked -------------------------------------------------------------------------------------

// The one longest leased of those that are parked and may be taken. Null: none. While tickets wait
// none is parked anew. For what is only better than to open another one, a few are looked at,
// others the next time.
Slot* PoolBook::TakeParked(Pool* pool, TakeScope scope, TimePoint now) {
  if (pool->none_parked || pool->node->cell == nullptr) {
    return nullptr;
  }
  const Duration rest = ConnectGate::UsualConnectTime(*pool->node);
  std::list<Slot>& leased = pool->list(SlotState::kLeased);
  constexpr std::size_t kLooks = 8;
  for (std::size_t left = scope == TakeScope::kAllParked ? leased.size()
                                                         : std::min(leased.size(), kLooks);
       left > 0; --left) {
    Slot* slot = &leased.back();
    if (LeaseTable::IsInScope(*slot, scope, rest, now) && TakeIfParked(slot, now)) {
      return slot;
    }
    slots_.MoveBehind(slot);  // looked at last the next time
  }
  pool->none_parked = scope == TakeScope::kAllParked && pool->node->published > 0;
  return nullptr;
}

// Of the other pools of a full node: closed. Older tickets have had theirs.
bool PoolBook::EvictParked(Pool* beneficiary, TimePoint now) {
  Node* node = beneficiary->node;
  if (node->none_parked || node->cell == nullptr) {
    return false;
  }
  for (Pool* pool : node->pools) {
    if (Slot* slot = TakeParked(pool, TakeScope::kAllParked, now); slot != nullptr) {
      CloseSlot(slot, CloseReason::kIdle, now);
      sizer_.BlockRefill(node, now);
      return true;
    }
  }
  node->none_parked = node->published > 0;
  return false;
}

void PoolBook::TakeAllParked(Pool* pool, TimePoint now) {
  while (Slot* slot = TakeParked(pool, TakeScope::kAllParked, now)) {
    ComeBack(slot, protocol::ReleaseKind::kClean, now);
  }
}

void PoolBook::CountParked() {
  for (const auto& [id, pool] : directory_.pools()) {
    pool->parked = 0;
    for (Slot& slot : pool->list(SlotState::kLeased)) {
      LeaseTable::CountRetakes(&slot);
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
  const Duration rest = ConnectGate::UsualConnectTime(*pool->node);
  std::list<Slot>& leased = pool->list(SlotState::kLeased);
  for (auto place = leased.end(); place != leased.begin();) {
    Slot* slot = &*--place;
    if (slot->parking.cell == nullptr) {
      continue;
    }
    LeaseTable::CountRetakes(slot);
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
    const bool spare = unused && (wanted > 0 || LeaseTable::HasRested(*slot, rest, now));
    if ((expired || spare) && TakeIfParked(slot, now)) {
      --wanted;
      ++place;  // the slot leaves the list
      ComeBack(slot, protocol::ReleaseKind::kClean, now);
    }
  }
}

}  // namespace polarx
