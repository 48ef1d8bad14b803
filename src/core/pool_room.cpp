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

// Does an older ticket than the beneficiary's oldest wait in the pool? Of one that waits in both, a
// request for several nodes, one slot is claimed.
bool PoolBook::IsClaimed(const Pool& pool, const Pool& beneficiary) {
  if (pool.queue.empty()) {
    return false;
  }
  const TicketId here = pool.queue.begin()->first;
  const TicketId there = beneficiary.queue.begin()->first;
  return here < there || (here == there && pool.count(SlotState::kIdle) == 1);
}

// The slot idle longest, of other pools that no older ticket waits in; `spare`: of those above
// their minimum. Null: none.
Slot* PoolBook::LongestIdle(const Pool& beneficiary, bool spare) {
  return slots_.LongestIdle([&beneficiary, spare](const Pool& pool) {
    const int least = spare ? pool.node->limits.min_size : 0;
    return &pool != &beneficiary && pool.count(SlotState::kIdle) > pool.kept &&
           pool.total() - pool.count(SlotState::kClosing) > least && !IsClaimed(pool, beneficiary);
  });
}

// Gives up one slot of any node: idle ones first, then what sessions keep but do not use.
bool PoolBook::GiveUpForRoom(const Pool& beneficiary, TimePoint now) {
  Slot* slot = LongestIdle(beneficiary, true);
  slot = slot != nullptr ? slot : LongestIdle(beneficiary, false);
  for (const TakeScope scope : {TakeScope::kRestedOrUnused, TakeScope::kAllParked}) {
    for (auto pool = directory_.pools().begin();
         slot == nullptr && pool != directory_.pools().end(); ++pool) {
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
  const TicketId ticket = pool->queue.begin()->first;
  for (; missing > 0 && ticket <= nothing_given_up_for_; --missing) {
    if (!GiveUpForRoom(*pool, now)) {
      nothing_given_up_for_ = ticket;
      break;
    }
  }
}

// Whatever has happened may have made room.
void PoolBook::WakeStarved() {
  nothing_given_up_for_ = kNoTicket;
  if (std::exchange(starved_, false)) {
    for (const auto& [id, pool] : directory_.pools()) {
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
  int under_way = pool->count(SlotState::kConnecting);
  std::vector<Ticket*> hopeless;
  for (const auto& [id, ticket] : pool->queue) {
    if (under_way-- > 0 || ticket->patient) {
      continue;
    }
    if (coming && now < ticket->arrived_at + kPatience) {
      sleepers_.SetEarlier(pool->id, ticket->arrived_at + kPatience);
    } else {
      hopeless.push_back(ticket);
    }
  }
  for (Ticket* ticket : hopeless) {
    if (now >= told_lack_ + kTellAgain) {
      told_lack_ = now;
      surroundings_->Log(status.message(), status.detail());
    }
    ++pool->counters.rejected;
    RejectTicket(ticket, status);
  }
}

}  // namespace polarx
