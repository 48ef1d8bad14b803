// Who is turned away: requests that have nothing to wait for, and those that have waited for as
// long as they may. On the main thread.
#pragma once

#include "core/owners.h"
#include "core/room_maker.h"

namespace polarx {

class Refuser {
 public:
  Refuser(Owners* own, const RoomMaker* room) : own_(*own), room_(*room) {}

  // The ticket is told, and waits no longer.
  void Reject(Ticket* ticket, const Status& status);
  // Those whose answer is due get the true reason.
  void RejectExpired(TimePoint now);
  // Of the pool, and once in a dispatch of its node, those that have nothing to wait for.
  void RejectHopeless(Pool* pool, TimePoint now);

 private:
  void RejectHeldOff(Pool* pool, const HoldOff& hold_off, TimePoint now);
  void RejectWithoutRoom(Pool* pool, TimePoint now);
  void RejectBeyondSlots(Node* node, TimePoint now);
  void RejectForRoom(Ticket* ticket, Pool* pool, const Status& status, TimePoint now);
  Status FullStatus(const Node& node, const Ticket& ticket, int place, TimePoint now) const;

  Owners& own_;
  const RoomMaker& room_;
  TimePoint told_lack_{};  // of descriptors, in the log
};

}  // namespace polarx
