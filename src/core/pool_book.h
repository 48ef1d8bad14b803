// The book-keeping of all pools: who holds what, who waits, what is opened and closed. Decides
// everything and does nothing itself: what is to be done goes to a SlotDriver, LeaseEvents and
// Surroundings. Owned by the main
// thread; time is an argument.
//
// Events come in during a turn (Request, Release, OnConnected …); EndTurn draws the conclusions:
// tickets are served oldest first, missing slots opened, hopeless tickets rejected, minima
// refilled.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/connect_gate.h"
#include "core/lease_table.h"
#include "core/outside.h"
#include "core/pool.h"
#include "core/pool_directory.h"
#include "core/pool_sizer.h"
#include "core/request_queue.h"
#include "core/settings.h"
#include "core/slot_table.h"
#include "core/slot_upkeep.h"
#include "core/stat_line.h"
#include "core/status.h"
#include "core/timer_queue.h"
#include "core/urgency.h"

namespace polarx {

class PoolBook {
 public:
  // `cells`: for the first nodes, so many; on others leases are not parked.
  PoolBook(SlotDriver* driver, LeaseEvents* events, Surroundings* surroundings,
           const Settings& settings, std::uint64_t seed, std::span<NodeCell> cells = {});
  ~PoolBook();

  // --- what pools there are -------------------------------------------------------------------
  void Apply(const Settings& settings, TimePoint now);
  void SetCatalog(const std::vector<NodeDefinition>& nodes, std::vector<MappingDefinition> mappings,
                  TimePoint now);
  // `node`: its server, null if there is none.
  void AddMapping(const NodeDefinition* node, MappingDefinition mapping, TimePoint now);
  // A session asks for that role on that node.
  void NoteUse(const MappingQuestion& pair, TimePoint now) { directory_.NoteUse(pair, now); }
  // Those that sessions have asked for, hold or wait for, of late.
  std::vector<MappingQuestion> KnownPairs(TimePoint now);

  // --- sessions -------------------------------------------------------------------------------
  // All mappings must be known, all nodes different. The answer is Grant or Reject, at the earliest
  // in EndTurn. `sets`: the session sets its parameters on what it gets.
  void Request(SessionId session, std::uint32_t request, std::span<const protocol::Wanted> wanted,
               Duration queue_timeout, bool sets, TimePoint now, LeaseCell* cells = nullptr);
  // Gives up a waiting request; false: there is none of that number.
  bool Withdraw(SessionId session, std::uint32_t request);
  // False: that session has no such lease.
  // `verify`: parameters whose value its borrower may have changed.
  bool Release(SessionId session, LeaseId lease, protocol::ReleaseKind kind, TimePoint now,
               std::vector<std::string> verify = {});
  // Takes a lease back that its session never saw: it needs no reset.
  bool Return(SessionId session, LeaseId lease, TimePoint now);
  Slot* FindLease(LeaseId lease);
  // Takes the lease back if its session has given it back through its cell; all such leases: how
  // many. Needed where they would be missed; otherwise EndTurn finds them within kFreshTime.
  bool CollectReturned(LeaseId lease, TimePoint now);
  int CollectReturned(TimePoint now);
  // The session is gone; in which state it left what it had not parked, nobody knows.
  void Abandon(SessionId session, LeaseId lease, TimePoint now);

  // --- slots ----------------------------------------------------------------------------------
  Slot* FindSlot(SlotId slot) { return slots_.Find(slot); }  // null: gone
  void OnConnected(Slot* slot, TimePoint now);
  void OnConnectFailed(Slot* slot, const Status& status, FailureScope scope, TimePoint now);
  void OnReady(Slot* slot, TimePoint now);  // warmed or reset
  // `lost`: the connection is good for nothing any more.
  void OnWarmupFailed(Slot* slot, const std::string& why, bool lost, TimePoint now);
  // Unset: it cannot be measured.
  void OnMeasured(Slot* slot, std::optional<std::int64_t> bytes, TimePoint now);
  // The datanode hung up, or did not do as told. A leased slot is closed when it comes back.
  void OnBroken(Slot* slot, const std::string& why, TimePoint now);
  void OnClosed(Slot* slot, bool timed_out);
  void OnPing(NodeId node, bool up, double milliseconds, const Status& status, TimePoint now);

  // --- operation ------------------------------------------------------------------------------
  // node 0: all; remote_user "": all. How many slots were closed or marked.
  int Clean(NodeId node, const std::string& remote_user, TimePoint now);
  // An idle slot of the pool to be used for a ping, moved to checking; null: none. -> OnReady.
  Slot* TakeForPing(Pool* pool, TimePoint now);
  // node 0: all, those to come included. While a node is paused its requests wait.
  void Pause(NodeId node, bool paused, TimePoint now);
  void ResetStats();
  // Leases that sessions still hold from earlier workers, by node; all of them at every call.
  void SetSurvivors(const std::map<NodeId, int>& survivors);

  // Looks at all leases: which are parked, and how often they were taken again.
  void CountParked();

  // --- time -----------------------------------------------------------------------------------
  void EndTurn(TimePoint now);
  void Maintain(TimePoint now);  // at the interval of pool_maintenance_timeout
  // How soon resets have to be done, by what waits now and what has happened since the last call.
  Urgency TakeUrgencyOfResets();
  TimePoint NextDeadline() const;  // when EndTurn is needed though nothing has happened

  // --- to be looked at ------------------------------------------------------------------------
  const PoolDirectory& directory() const { return directory_; }
  const RequestCounters& counters() const { return counters_; }
  const Ticket* TicketOf(SessionId session) const { return queue_.Of(session); }
  const Settings& settings() const { return settings_; }

 private:
  void TakeIn(const PoolDirectory::Changes& changes, TimePoint now);
  void Rebind(TimePoint now);
  void DropEmpty();
  void DoomAll(Pool* pool, CloseReason reason, TimePoint now);

  void MarkDirty(Pool* pool);
  void NoteHurry(const Pool& pool);
  void MarkNode(Node* node);
  void MarkRoom(Pool* pool);
  void CloseSlot(Slot* slot, CloseReason reason, TimePoint now);
  void Doom(Slot* slot, CloseReason reason, TimePoint now);
  void DoomUnfit(TimePoint now);
  bool AboveLimit(const Node& node) const;
  void NoteEnd(Slot* slot, const std::string& why, TimePoint now);
  void ComeBack(Slot* slot, protocol::ReleaseKind kind, TimePoint now,
                std::vector<std::string> verify = {});

  void SetLacking(Pool* pool, int lacking);
  void Publish(Node* node);
  void OnReturned(Slot* slot, TimePoint now);
  void LookAtRecentGrants(TimePoint now);
  void EndUse(Slot* slot, TimePoint now);
  Duration EndLease(Slot* slot, TimePoint now);
  bool EndTaken(Slot* slot, parking::State state, TimePoint now);
  bool TakeIfParked(Slot* slot, TimePoint now);
  bool TakeOrBar(Slot* slot, TimePoint now);
  Slot* TakeParked(Pool* pool, TakeScope scope, TimePoint now);
  bool EvictParked(Pool* beneficiary, TimePoint now);
  void TakeAllParked(Pool* pool, TimePoint now);
  void MaintainParked(Pool* pool, TimePoint now);
  void CloseAboveLimits(TimePoint now);
  void FireTimers(TimePoint now);
  void DoWhatIsDue(Slot* slot, TimePoint now);
  void CheckMemory(Slot* slot, TimePoint now);
  void WarnOfLongLease(Slot* slot, TimePoint now);
  void CallBack(Slot* slot, TimePoint now);
  bool IsOfUse(const Slot& slot, TimePoint now) const;
  void CloseDispensable(Pool* pool, TimePoint now);
  void Forget(Slot* slot);
  void Settle(Slot* slot, TimePoint now);
  double Jitter() { return std::uniform_real_distribution<double>(0, 1)(random_); }

  std::unique_ptr<Ticket> TakeOut(Ticket* ticket);
  void RejectTicket(Ticket* ticket, const Status& status);
  void PassToken(TimePoint now);
  void ServeDirty(std::vector<Pool*>* looked_at, TimePoint now);
  void ExpireTickets(TimePoint now);
  void WakeSleepers(TimePoint now);
  std::vector<Pool*> Dispatch(const std::vector<Pool*>& round, TimePoint now);
  static bool HasNothingToGive(const Node& node);
  void UpdateLacking(Pool* pool, TimePoint now);
  void StartCourse(Pool* pool, TimePoint now);
  void ProvideLater(TicketId id, Pool* pool, TimePoint now);
  bool Provide(Ticket* ticket, Pool* pool, TimePoint now);
  bool Obtain(const Ticket& ticket, Pool* pool, TimePoint now);
  bool TakeParkedFor(Pool* pool, TakeScope scope, TimePoint now);
  bool Evict(const Ticket& ticket, Pool* pool, TimePoint now);
  Slot* LiveIdle(Pool* pool, TimePoint now);
  bool TryGrant(Ticket* ticket, TimePoint now);
  void Hand(Slot* slot, const Ticket& ticket, RoleId role, TimePoint now);
  void Open(Pool* pool, TimePoint now);
  // What should be idle before another connection would be open.
  struct SoonIdle {
    int from_reset = 0;  // or from a warm-up or check
    int from_connect = 0;
  };
  SoonIdle CountSoonIdle(Pool* pool, TimePoint now);
  static bool IsClaimed(const Pool& pool, const Pool& beneficiary);
  void RejectHopeless(Pool* pool, TimePoint now);
  void RejectHeldOff(Pool* pool, const HoldOff& hold_off, TimePoint now);
  void RejectBeyondSlots(Node* node, TimePoint now);
  bool MustFill(const Pool& pool, TimePoint now) const;

  bool HasRoom(const Pool& pool);
  Slot* LongestIdle(const Pool& beneficiary, bool spare);
  bool GiveUpForRoom(const Pool& beneficiary, TimePoint now);
  void MakeRoom(Pool* pool, int missing, TimePoint now);
  void WakeStarved();
  void RejectForRoom(Pool* pool, TimePoint now);
  void FillFromSessions(std::vector<Pool*>* filling, TimePoint now);
  bool Fill(Pool* pool, TimePoint now);
  void WarmUp(Pool* pool, TimePoint now);
  Status FullStatus(const Node& node, const Ticket& ticket, int place, TimePoint now);

  SlotDriver* const driver_;
  LeaseEvents* const events_;
  Surroundings* const surroundings_;
  Settings settings_;
  std::minstd_rand random_;
  PoolDirectory directory_;
  SlotTable slots_;
  ConnectGate gate_;
  RequestQueue queue_;
  PoolSizer sizer_;
  SlotUpkeep upkeep_;
  LeaseTable leases_;
  TimerQueue<PoolId> sleepers_;  // pools to be looked at again
  std::vector<Pool*> dirty_;
  bool hurries_resets_ = false;
  bool starved_ = false;                       // tickets lack nothing but a descriptor
  TicketId nothing_given_up_for_ = kNoTicket;  // nor for younger ones, in this turn
  TimePoint told_lack_{};                      // of descriptors, in the log
  RequestCounters counters_;
  std::uint64_t dispatch_ = 0;  // how many there were
};

}  // namespace polarx
