// The descriptors of the process as a limit over all nodes: what is given up for a request that
// lacks one. On the main thread.
#pragma once

#include "core/slot_life.h"

namespace polarx {

class RoomMaker {
 public:
  RoomMaker(Owners* own, SlotLife* life) : own_(*own), taker_(own), life_(*life) {}

  bool HasRoom(const Pool& pool) const { return own_.surroundings->RoomFor(*pool.node).ok(); }
  // The pool might open `missing` slots for its requests, but that there is no descriptor: as many
  // slots of other pools are given up, if that helps.
  void MakeRoom(Pool* pool, int missing, TimePoint now);
  // The slot idle longest, of other pools that no older request waits in; `spare`: of those above
  // their minimum. Returns null if there is none.
  Slot* LongestIdle(const Pool& beneficiary, bool spare) const;

 private:
  bool GiveUpOne(const Pool& beneficiary, TimePoint now);

  Owners& own_;
  LeaseTaker taker_;
  SlotLife& life_;
  TicketId nothing_given_up_for_ = kNoTicket;  // nor for younger ones
  std::uint64_t as_of_ = 0;                    // what had happened then
};

}  // namespace polarx
