// The descriptors of the process as a limit over all nodes: what is given up for a ticket that
// lacks one, who is turned away; on the main thread.
#include <algorithm>
#include <utility>

#include "core/pool_book.h"

namespace polarx {
namespace {

// What is on its way to be idle is waited for so long.
constexpr Duration kPatience = std::chrono::seconds(1);
// The log hears of it once in so long.
constexpr Duration kTellAgain = std::chrono::seconds(60);

}  // namespace

bool PoolBook::HasRoom(const Pool& pool) { return surroundings_->RoomFor(*pool.node).ok(); }

// The slot idle longest, of other pools that no older ticket waits in; `spare`: of those above
// their minimum. Null: none.
Slot* PoolBook::LongestIdle(const Pool& beneficiary, bool spare) {
  return slots_.LongestIdle([&beneficiary, spare](const Pool& pool) {
    const int kept = spare ? pool.node->limits.min_size : 0;
    return &pool != &beneficiary && pool.total() - pool.count(SlotState::kClosing) > kept &&
           !IsClaimed(pool, beneficiary);
  });
}

// Gives up one slot of any node: idle ones first, then what sessions keep but do not use.
bool PoolBook::GiveUpForRoom(const Pool& beneficiary, TimePoint now) {
  Slot* slot = LongestIdle(beneficiary, true);
  slot = slot != nullptr ? slot : LongestIdle(beneficiary, false);
  for (const TakeScope scope : {TakeScope::kRestedOrUnused, TakeScope::kAllParked}) {
    for (auto pool = pools_.begin(); slot == nullptr && pool != pools_.end(); ++pool) {
      if (!IsClaimed(*pool->second, beneficiary)) {
        slot = TakeParked(pool->second.get(), scope, now);
      }
    }
  }
  if (slot == nullptr) {
    return false;
  }
  CloseSlot(slot, CloseReason::kIdle, now);
  return true;
}

// The pool might open `missing` slots for its tickets, but that there is no descriptor. What could
// not be found for one ticket is not looked for again in this turn: a younger one may take less.
void PoolBook::MakeRoom(Pool* pool, int missing, TimePoint now) {
  starved_ = true;
  missing = std::min(missing, kParallelConnects - pool->node->count(SlotState::kConnecting)) -
            slots_.count(SlotState::kClosing);
  const TicketId ticket = pool->queue.front()->id;
  for (; missing > 0 && ticket < nothing_given_up_for_; --missing) {
    if (!GiveUpForRoom(*pool, now)) {
      nothing_given_up_for_ = ticket;
    }
  }
}

// Whatever has happened may have made room.
void PoolBook::WakeStarved() {
  nothing_given_up_for_ = kNoTicket;
  if (std::exchange(starved_, false)) {
    for (auto& [id, pool] : pools_) {
      if (!pool->queue.empty()) {
        MarkDirty(pool.get());
      }
    }
  }
}

void PoolBook::RejectForRoom(Pool* pool, TimePoint now) {
  const Status status = surroundings_->RoomFor(*pool->node);
  if (status.ok() || slots_.count(SlotState::kClosing) > 0 ||
      LongestIdle(*pool, false) != nullptr) {
    return;
  }
  const bool coming = slots_.count(SlotState::kResetting) + slots_.count(SlotState::kChecking) +
                          slots_.count(SlotState::kWarming) >
                      0;
  auto ticket = pool->queue.begin();
  std::advance(ticket, std::min(pool->queue.size(),
                                static_cast<std::size_t>(pool->count(SlotState::kConnecting))));
  while (ticket != pool->queue.end()) {
    Ticket* next = *ticket++;
    if (next->patient) {
      continue;
    }
    if (coming && now < next->arrived_at + kPatience) {
      sleepers_.SetEarlier(pool->id, next->arrived_at + kPatience);
      continue;
    }
    if (now >= told_lack_ + kTellAgain) {
      told_lack_ = now;
      surroundings_->Log(status.message(), status.detail());
    }
    ++pool->counters.rejected;
    RejectTicket(next, status);
  }
}

}  // namespace polarx
