// The pools are brought to their sizes; on the main thread.
#include "core/pool_filler.h"

#include <algorithm>
#include <utility>

namespace polarx {

// --- at the end of a turn -----------------------------------------------------------------------

// Do the pool's minima ask for another slot, and may it be opened?
bool PoolFiller::MustFill(const Pool& pool, TimePoint now) const {
  return own_.gate.MayOpen(pool, ConnectPurpose::kReserve, now) &&
         own_.sizer.CountMissing(pool, now) > 0;
}

bool PoolFiller::CanOpen(const Pool& pool, TimePoint now) const {
  return !own_.dispatcher.starving() && MustFill(pool, now) && room_.HasRoom(pool);
}

bool PoolFiller::LacksAny(const std::vector<Pool*>& pools, TimePoint now) const {
  return std::any_of(pools.begin(), pools.end(),
                     [&](const Pool* pool) { return MustFill(*pool, now); });
}

void PoolFiller::TakeRested(const std::vector<Pool*>& pools, TimePoint now) {
  for (Pool* pool : pools) {
    const int reserve = own_.sizer.ReserveOf(*pool, now);
    while (Reserve(pool->lasting_sizes()) < reserve && MustFill(*pool, now)) {
      Slot* slot = taker_.TakeParked(pool, TakeScope::kRested, now);
      if (slot == nullptr) {
        break;
      }
      life_.ComeBack(slot, protocol::ReleaseKind::kClean, now);
    }
  }
}

void PoolFiller::Fill(const std::vector<Pool*>& pools, TimePoint now) {
  for (bool opened = true; opened;) {
    opened = false;
    for (Pool* pool : pools) {
      if (CanOpen(*pool, now)) {
        life_.Open(pool, now);
        opened = true;
      }
    }
  }
}

void PoolFiller::WarmUp(Pool* pool, TimePoint now) {
  const bool warms_up = own_.sizer.WarmsUp(*pool, now);
  while (!pool->cold.empty()) {
    Slot* slot = own_.slots.Find(pool->cold.front());
    const bool cold = slot != nullptr && slot->age.leases == 0 && slot->state == SlotState::kIdle;
    if (cold && warms_up && !PoolSizer::MayWarmNow(*pool)) {
      return;
    }
    pool->cold.pop_front();
    if (cold && warms_up) {
      life_.Warm(slot, now);
    } else if (cold) {
      own_.slots.SetSettled(slot);
    }
  }
}

void PoolFiller::CloseDispensable(Pool* pool, TimePoint now) {
  for (int left = own_.sizer.CountDispensable(*pool, now); left > 0; --left) {
    life_.Close(pool->expiring_idle().begin()->second, CloseReason::kLifetime, now);
  }
}

// Of its own connects that are under way the pool hears in any case.
bool PoolFiller::WaitsToOpen(const Pool& pool, TimePoint now) const {
  if (pool.count(SlotState::kConnecting) > 0 || own_.sizer.CountMissing(pool, now) == 0) {
    return false;
  }
  const ConnectVerdict verdict = own_.gate.Ask(pool, ConnectPurpose::kReserve, now);
  return (verdict.answer == ConnectVerdict::kLater && !pool.login_refused) ||
         (verdict.answer == ConnectVerdict::kRefused && verdict.because == &pool.node->hold_off);
}

void PoolFiller::PassTurns(const std::vector<Pool*>& pools, TimePoint now) {
  const auto waits_to_warm = [](const Pool& pool) {
    return !pool.cold.empty() && pool.queue.empty();
  };
  for (Pool* pool : pools) {
    if (WaitsToOpen(*pool, now)) {
      own_.dispatcher.HoldUp(pool, HeldUp::kOpening);
    }
    if (waits_to_warm(*pool)) {
      own_.dispatcher.HoldUp(pool, HeldUp::kWarming);
    }
  }
  for (Pool* pool : pools) {
    Node* node = pool->node;
    own_.dispatcher.MarkHeldUp(
        node, HeldUp::kOpening, kParallelConnects,
        [&](const Pool& first) { return CanOpen(first, now); },
        [&](const Pool& first) { return WaitsToOpen(first, now); });
    own_.dispatcher.MarkHeldUp(
        node, HeldUp::kWarming, kParallelWarmups,
        [&](const Pool& first) { return waits_to_warm(first) && PoolSizer::MayWarmNow(first); },
        waits_to_warm);
  }
}

// --- maintenance --------------------------------------------------------------------------------

void PoolFiller::Maintain(TimePoint now) {
  (void)life_.CollectReturned(now);
  for (const auto& [id, pool] : own_.directory.pools()) {
    MaintainParked(pool.get(), now);
    for (int surplus = own_.sizer.CountUnused(*pool, now); surplus > 0; --surplus) {
      life_.Close(&pool->list(SlotState::kIdle).back(), CloseReason::kIdle, now);
    }
    own_.dispatcher.Mark(pool.get());
  }
  CloseAboveLimits(now);
}

void PoolFiller::CloseAboveLimits(TimePoint now) {
  for (const auto& [id, pool] : own_.directory.pools()) {
    const Node* node = pool->node;
    std::list<Slot>& idle = pool->list(SlotState::kIdle);
    int above = node->total() - node->count(SlotState::kClosing) - node->limits.max_size;
    for (; above > 0 && !idle.empty(); --above) {
      life_.Close(&idle.back(), CloseReason::kIdle, now);
    }
    for (; above > 0; --above) {
      Slot* slot = taker_.TakeParked(pool.get(), TakeScope::kAllParked, now);
      if (slot == nullptr) {
        break;
      }
      life_.Close(slot, CloseReason::kIdle, now);
    }
  }
}

// Notes which of the leases have not been used since the last time, and takes back those that are
// wanted elsewhere, due for something, or reset.
void PoolFiller::MaintainParked(Pool* pool, TimePoint now) {
  const std::chrono::seconds keepalive = own_.settings.pool_conn_keepalive;
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
    if ((expired || spare) && taker_.TakeIfParked(slot, now)) {
      --wanted;
      ++place;  // the slot leaves the list
      life_.ComeBack(slot, protocol::ReleaseKind::kClean, now);
    }
  }
}

}  // namespace polarx
