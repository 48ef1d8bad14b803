// The pools are brought to their sizes: what is missing is opened and warmed up at the end of a
// turn, what is too much is closed there and at maintenance; on the main thread.
#include <algorithm>
#include <utility>
#include <vector>

#include "core/pool_book.h"

namespace polarx {

// Do the pool's minima ask for another slot, and may it be opened?
bool PoolBook::MustFill(const Pool& pool, TimePoint now) const {
  return gate_.MayOpen(pool, ConnectPurpose::kReserve, now) && sizer_.CountMissing(pool, now) > 0;
}

// What sessions have given back, or keep and do not use, may be enough.
void PoolBook::FillFromSessions(std::vector<Pool*>* filling, TimePoint now) {
  if (std::none_of(filling->begin(), filling->end(),
                   [&](const Pool* pool) { return MustFill(*pool, now); })) {
    return;
  }
  (void)CollectReturned(now);
  ServeDirty(filling, now);
  for (Pool* pool : *filling) {
    const int reserve = sizer_.ReserveOf(*pool, now);
    while (Reserve(pool->lasting_sizes()) < reserve && MustFill(*pool, now)) {
      Slot* slot = TakeParked(pool, TakeScope::kRested, now);
      if (slot == nullptr) {
        break;
      }
      ComeBack(slot, protocol::ReleaseKind::kClean, now);
    }
  }
  ServeDirty(filling, now);
}

// False: nothing is to be opened.
bool PoolBook::Fill(Pool* pool, TimePoint now) {
  if (starved_ || !MustFill(*pool, now) || !HasRoom(*pool)) {
    return false;
  }
  Open(pool, now);
  return true;
}

void PoolBook::CloseDispensable(Pool* pool, TimePoint now) {
  for (int left = sizer_.CountDispensable(*pool, now); left > 0; --left) {
    CloseSlot(pool->expiring_idle().begin()->second, CloseReason::kLifetime, now);
  }
}

// An expiring slot that comes back serves until another can stand in for it.
bool PoolBook::IsOfUse(const Slot& slot, TimePoint now) const {
  return !slot.age.expiring || sizer_.NeedsExpiring(*slot.pool, now);
}

// --- warm-up ------------------------------------------------------------------------------------

// Whoever needs a new connection has it cold.
void PoolBook::WarmUp(Pool* pool, TimePoint now) {
  const bool warms_up = sizer_.WarmsUp(*pool, now);
  while (!pool->cold.empty()) {
    Slot* slot = FindSlot(pool->cold.front());
    const bool cold = slot != nullptr && slot->age.leases == 0 && slot->state == SlotState::kIdle;
    if (cold && warms_up && !PoolSizer::MayWarmNow(*pool)) {
      return;
    }
    pool->cold.pop_front();
    if (cold && warms_up) {
      slots_.Move(slot, SlotState::kWarming, now);
      driver_->Warm(slot);
    } else if (cold) {
      slots_.SetSettled(slot);
    }
  }
}

void PoolBook::OnWarmupFailed(Slot* slot, const std::string& why, bool lost, TimePoint now) {
  Pool* pool = slot->pool;
  if (slot->state != SlotState::kWarming) {
    return;
  }
  MarkNode(pool->node);  // the next one's turn
  if (!std::exchange(pool->warmup_failed, true)) {
    surroundings_->Log("pooler.warmup_query failed on datanode \"" + pool->node->definition.name +
                           "\" as remote user \"" + pool->remote_user + "\": " + why,
                       "");
  }
  if (lost) {
    PoolSizer::BlockWarmup(pool, now);
    CloseSlot(slot, CloseReason::kError, now);
  } else {
    slots_.Move(slot, SlotState::kResetting, now);
    NoteHurry(*pool);
    driver_->Reset(slot, {protocol::ReleaseKind::kInTransaction, false, {}});
  }
}

// --- maintenance --------------------------------------------------------------------------------

void PoolBook::Maintain(TimePoint now) {
  (void)CollectReturned(now);
  for (const auto& [id, pool] : directory_.pools()) {
    MaintainParked(pool.get(), now);
    for (int surplus = sizer_.CountUnused(*pool, now); surplus > 0; --surplus) {
      CloseSlot(&pool->list(SlotState::kIdle).back(), CloseReason::kIdle, now);
    }
    MarkDirty(pool.get());
  }
  CloseAboveLimits(now);
}

// Above a lowered limit idle slots go, unused or not, without waiting for a round.
void PoolBook::CloseAboveLimits(TimePoint now) {
  for (const auto& [id, pool] : directory_.pools()) {
    const Node* node = pool->node;
    std::list<Slot>& idle = pool->list(SlotState::kIdle);
    int above = node->total() - node->count(SlotState::kClosing) - node->limits.max_size;
    for (; above > 0 && !idle.empty(); --above) {
      CloseSlot(&idle.back(), CloseReason::kIdle, now);
    }
    for (; above > 0; --above) {
      Slot* slot = TakeParked(pool.get(), TakeScope::kAllParked, now);
      if (slot == nullptr) {
        break;
      }
      CloseSlot(slot, CloseReason::kIdle, now);
    }
  }
}

}  // namespace polarx
