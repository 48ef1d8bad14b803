// How leases end; on the main thread.
#include "core/lease_taker.h"

#include <algorithm>

namespace polarx {

void LeaseTaker::EndUse(Slot* slot, TimePoint now) {
  slot->pool->hold_time.Add(own_.leases.End(slot, now));
  slot->idle_since = now;
  own_.dispatcher.Mark(slot->pool);
}

void LeaseTaker::EndUnseen(Slot* slot, TimePoint now) {
  (void)own_.leases.End(slot, now);
  slot->idle_since = now;
}

// `state`: of the cell when the lease was taken.
bool LeaseTaker::EndTaken(Slot* slot, parking::State state, TimePoint now) {
  if (state == parking::State::kGone) {
    return false;
  }
  slot->parking.reset_sent = state == parking::State::kResetSent;
  own_.events->Taken(*slot);
  EndUse(slot, now);
  return true;
}

bool LeaseTaker::TakeReturned(Slot* slot, TimePoint now) {
  return EndTaken(
      slot, LeaseTable::TakeReturned(slot) ? parking::State::kReturned : parking::State::kGone,
      now);
}

Slot* LeaseTaker::TakeRecentlyReturned(TimePoint now) {
  Slot* slot = own_.leases.TakeRecentGrant(now);
  if (slot != nullptr) {
    (void)EndTaken(slot, parking::State::kReturned, now);
  }
  return slot;
}

Slot* LeaseTaker::TakeParked(Pool* pool, TakeScope scope, TimePoint now) {
  Node* node = pool->node;
  if (pool->none_parked() || node->cell == nullptr) {
    return nullptr;
  }
  const Duration rest = ConnectGate::UsualConnectTime(*node);
  std::list<Slot>& leased = pool->list(SlotState::kLeased);
  constexpr std::size_t kLooks = 8;
  const bool all = scope == TakeScope::kAllParked;
  for (std::size_t left = all ? leased.size() : std::min(leased.size(), kLooks); left > 0; --left) {
    Slot* slot = &leased.back();
    if (LeaseTable::IsInScope(*slot, scope, rest, now) && TakeIfParked(slot, now)) {
      return slot;
    }
    own_.slots.MoveBehind(slot);  // looked at last the next time
  }
  pool->searched = all ? node->waiting_period : pool->searched;
  return nullptr;
}

}  // namespace polarx
