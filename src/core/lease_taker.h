// How leases end: given back, or taken from sessions that keep but do not use them. On the main
// thread.
#pragma once

#include "core/owners.h"

namespace polarx {

// What becomes of a slot whose lease has ended, the caller says at once: until then it stands among
// the leased ones without a lease.
class LeaseTaker {
 public:
  explicit LeaseTaker(Owners* own) : own_(*own) {}

  // The lease ends, which was in use or was parked after such use.
  void EndUse(Slot* slot, TimePoint now);
  // The lease ends that its session has never seen.
  void EndUnseen(Slot* slot, TimePoint now);

  // Takes the lease if its session has parked it. Returns false if it has not.
  bool TakeIfParked(Slot* slot, TimePoint now) {
    return EndTaken(slot, LeaseTable::TakeParked(slot), now);
  }
  // The same, but a lease in use is not parked any more.
  bool TakeOrBar(Slot* slot, TimePoint now) {
    return EndTaken(slot, LeaseTable::TakeOrBar(slot), now);
  }
  // Takes the lease if its session has given it back through its cell.
  bool TakeReturned(Slot* slot, TimePoint now);
  // The next lease that was given back through its cell, of those to be looked at now; null: none.
  Slot* TakeRecentlyReturned(TimePoint now);
  // Takes the one longest leased of the pool's parked leases that may be taken; null: none. While
  // requests wait none is parked anew, so that all are looked at once. For what is only better than
  // to open another one a few are looked at, others the next time.
  Slot* TakeParked(Pool* pool, TakeScope scope, TimePoint now);

 private:
  bool EndTaken(Slot* slot, parking::State state, TimePoint now);

  Owners& own_;
};

}  // namespace polarx
