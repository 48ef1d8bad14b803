// What is given up for a request that lacks a descriptor; on the main thread.
#include "core/room_maker.h"

#include <algorithm>
#include <utility>

namespace polarx {
namespace {

// Does an older request than the beneficiary's oldest wait in the pool? Of one that waits in both,
// a request for several nodes, one slot is claimed.
bool IsClaimed(const Pool& pool, const Pool& beneficiary) {
  if (pool.queue.empty()) {
    return false;
  }
  const TicketId here = pool.queue.begin()->first;
  const TicketId there = beneficiary.queue.begin()->first;
  return here < there || (here == there && pool.count(SlotState::kIdle) == 1);
}

}  // namespace

Slot* RoomMaker::LongestIdle(const Pool& beneficiary, bool spare) const {
  return own_.slots.LongestIdle([&beneficiary, spare](const Pool& pool) {
    const int least = spare ? pool.node->limits.min_size : 0;
    return &pool != &beneficiary && pool.count(SlotState::kIdle) > pool.kept &&
           pool.total() - pool.count(SlotState::kClosing) > least && !IsClaimed(pool, beneficiary);
  });
}

// Of any node: idle ones first, then what sessions keep but do not use.
bool RoomMaker::GiveUpOne(const Pool& beneficiary, TimePoint now) {
  Slot* slot = LongestIdle(beneficiary, true);
  slot = slot != nullptr ? slot : LongestIdle(beneficiary, false);
  for (const TakeScope scope : {TakeScope::kRestedOrUnused, TakeScope::kAllParked}) {
    const auto& pools = own_.directory.pools();
    for (auto pool = pools.begin(); slot == nullptr && pool != pools.end(); ++pool) {
      if (!IsClaimed(*pool->second, beneficiary)) {
        slot = taker_.TakeParked(pool->second.get(), scope, now);
      }
    }
  }
  if (slot == nullptr) {
    return false;
  }
  life_.Close(slot, CloseReason::kIdle, now);
  return true;
}

// What could not be found for one request is not looked for again until something has happened: a
// younger one may take less.
void RoomMaker::MakeRoom(Pool* pool, int missing, TimePoint now) {
  own_.dispatcher.NoteStarving(pool);
  const std::uint64_t happened = own_.dispatcher.happened();
  if (std::exchange(as_of_, happened) != happened) {
    nothing_given_up_for_ = kNoTicket;
  }
  missing = std::min(missing, kParallelConnects - pool->node->count(SlotState::kConnecting)) -
            own_.slots.count(SlotState::kClosing);
  const TicketId ticket = pool->queue.begin()->first;
  for (; missing > 0 && ticket <= nothing_given_up_for_; --missing) {
    if (!GiveUpOne(*pool, now)) {
      nothing_given_up_for_ = ticket;
      break;
    }
  }
}

}  // namespace polarx
