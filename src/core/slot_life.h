// What becomes of slots: opened, idle, lent, reset, checked, closed. Takes in what the datanode
// connections do, and gives the orders for them. On the main thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/lease_taker.h"
#include "core/owners.h"

namespace polarx {

class SlotLife {
 public:
  explicit SlotLife(Owners* own) : own_(*own), taker_(own) {}

  // --- orders -----------------------------------------------------------------------------------
  void Open(Pool* pool, TimePoint now);
  void Close(Slot* slot, CloseReason reason, TimePoint now);
  // The slot closes when it comes back; at once if it is parked.
  void Doom(Slot* slot, CloseReason reason, TimePoint now);
  // Of the pool: idle slots close now, all others when they come back.
  void DoomAll(Pool* pool, CloseReason reason, TimePoint now);
  // The pool's idle slot last used that still looks alive; dead ones are closed on the way. Returns
  // null if there is none.
  Slot* LiveIdle(Pool* pool, TimePoint now);
  // The idle slot is checked until OnReady comes.
  void Check(Slot* slot, TimePoint now);
  void Warm(Slot* slot, TimePoint now);
  // The idle slot is the ticket's, for that role.
  void Lend(Slot* slot, const Ticket& ticket, RoleId role, TimePoint now);
  // The slot's lease has ended: it is reset or closed.
  void ComeBack(Slot* slot, protocol::ReleaseKind kind, TimePoint now,
                std::vector<std::string> verify = {});
  // The slot has nothing left to do: it is idle, or closed if its time has come.
  void Settle(Slot* slot, TimePoint now);
  // Leases given back through their cells come back: that one if it is one of them, all of them, or
  // those that would be missed otherwise.
  bool CollectReturned(LeaseId lease, TimePoint now);
  int CollectReturned(TimePoint now);
  void CollectDue(TimePoint now);
  void TakeAllParked(Pool* pool, TimePoint now);

  // --- events -----------------------------------------------------------------------------------
  void OnConnected(Slot* slot, TimePoint now);
  void OnConnectFailed(Slot* slot, const Status& status, FailureScope scope, TimePoint now);
  void OnReady(Slot* slot, TimePoint now);
  void OnWarmupFailed(Slot* slot, const std::string& why, bool lost, TimePoint now);
  void OnMeasured(Slot* slot, std::optional<std::int64_t> bytes, TimePoint now);
  void OnBroken(Slot* slot, const std::string& why, TimePoint now);
  void OnClosed(Slot* slot, bool timed_out);
  // What is due for single slots: expiry, the memory check, the warning of a long lease.
  void FireTimers(TimePoint now);

  // True: since the last call resets have waited for others while requests found few idle slots.
  bool TakeHurry() { return std::exchange(hurries_resets_, false); }

 private:
  void NoteHurry(const Pool& pool);
  void NoteEnd(Slot* slot, const std::string& why, TimePoint now);
  CloseReason ReasonToClose(const Slot& slot, TimePoint now) const;
  void CallBack(Slot* slot, TimePoint now);
  void Forget(Slot* slot);
  void DoWhatIsDue(Slot* slot, TimePoint now);
  void CheckMemory(Slot* slot, TimePoint now);
  void WarnOfLongLease(Slot* slot, TimePoint now);

  Owners& own_;
  LeaseTaker taker_;
  bool hurries_resets_ = false;
};

}  // namespace polarx
