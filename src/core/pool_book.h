// The book-keeping of all pools, for its callers: takes in what happens and keeps the order of a
// turn. Who keeps what is in owners.h. Owned by the main thread; time is an argument.
//
// Events come in during a turn (Request, Release, OnConnected …); EndTurn draws the conclusions:
// tickets are served oldest first, missing slots opened, hopeless tickets rejected, minima
// refilled.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/owners.h"
#include "core/pool_filler.h"
#include "core/refuser.h"
#include "core/room_maker.h"
#include "core/slot_life.h"
#include "core/supplier.h"
#include "core/urgency.h"

namespace polarx {

class PoolBook {
 public:
  // `cells`: for the first nodes, so many; on others leases are not parked.
  PoolBook(SlotDriver* driver, LeaseEvents* events, Surroundings* surroundings,
           const Settings& settings, std::uint64_t seed, std::span<NodeCell> cells = {})
      : own_(driver, events, surroundings, settings, seed, cells) {}
  PoolBook(const PoolBook&) = delete;
  PoolBook& operator=(const PoolBook&) = delete;

  // --- what pools there are -------------------------------------------------------------------
  void Apply(const Settings& settings, TimePoint now);
  void SetCatalog(const std::vector<NodeDefinition>& nodes, std::vector<MappingDefinition> mappings,
                  TimePoint now);
  // `node`: its server, null if there is none.
  void AddMapping(const NodeDefinition* node, MappingDefinition mapping, TimePoint now);
  // A session asks for that role on that node.
  void NoteUse(const MappingQuestion& pair, TimePoint now) { own_.directory.NoteUse(pair, now); }
  // Those that sessions have asked for in the last hour, hold or wait for.
  std::vector<MappingQuestion> KnownPairs(TimePoint now);

  // --- sessions -------------------------------------------------------------------------------
  // All mappings must be known, all nodes different. The answer is Grant or Reject, at the earliest
  // in EndTurn. `sets`: the session sets its parameters on what it gets.
  void Request(SessionId session, std::uint32_t request, std::span<const protocol::Wanted> wanted,
               Duration queue_timeout, bool sets, TimePoint now, LeaseCell* cells = nullptr);
  // Gives up a waiting request. Returns false if there is none of that number.
  bool Withdraw(SessionId session, std::uint32_t request);
  // Returns false if that session has no such lease. `verify`: parameters whose value its borrower
  // may have changed.
  bool Release(SessionId session, LeaseId lease, protocol::ReleaseKind kind, TimePoint now,
               std::vector<std::string> verify = {});
  // Takes a lease back that its session never saw: it needs no reset.
  bool Return(SessionId session, LeaseId lease, TimePoint now);
  Slot* FindLease(LeaseId lease) { return own_.leases.Find(lease); }  // null: there is none
  // Takes the lease back if its session has given it back through its cell; all such leases: how
  // many. Needed where they would be missed; otherwise EndTurn finds them within kFreshTime.
  bool CollectReturned(LeaseId lease, TimePoint now) { return life_.CollectReturned(lease, now); }
  int CollectReturned(TimePoint now) { return life_.CollectReturned(now); }
  // The session is gone; in which state it left what it had not parked, nobody knows.
  void Abandon(SessionId session, LeaseId lease, TimePoint now);

  // --- slots ----------------------------------------------------------------------------------
  Slot* FindSlot(SlotId slot) { return own_.slots.Find(slot); }  // null: gone
  void OnConnected(Slot* slot, TimePoint now) { life_.OnConnected(slot, now); }
  void OnConnectFailed(Slot* slot, const Status& status, FailureScope scope, TimePoint now) {
    life_.OnConnectFailed(slot, status, scope, now);
  }
  void OnReady(Slot* slot, TimePoint now) { life_.OnReady(slot, now); }  // warmed or reset
  // `lost`: the connection is good for nothing any more.
  void OnWarmupFailed(Slot* slot, const std::string& why, bool lost, TimePoint now) {
    life_.OnWarmupFailed(slot, why, lost, now);
  }
  // Unset: it cannot be measured.
  void OnMeasured(Slot* slot, std::optional<std::int64_t> bytes, TimePoint now) {
    life_.OnMeasured(slot, bytes, now);
  }
  // The datanode hung up, or did not do as told. A leased slot is closed when it comes back.
  void OnBroken(Slot* slot, const std::string& why, TimePoint now) {
    life_.OnBroken(slot, why, now);
  }
  void OnClosed(Slot* slot, bool timed_out) { life_.OnClosed(slot, timed_out); }
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
  // At the interval of pool_maintenance_timeout.
  void Maintain(TimePoint now) { filler_.Maintain(now); }
  // How soon resets have to be done, by what waits now and what has happened since the last call.
  Urgency TakeUrgencyOfResets();
  TimePoint NextDeadline() const;  // when EndTurn is needed though nothing has happened

  // --- to be looked at ------------------------------------------------------------------------
  const PoolDirectory& directory() const { return own_.directory; }
  const Dispatcher& dispatcher() const { return own_.dispatcher; }
  const RequestCounters& counters() const { return supplier_.counters(); }
  const Ticket* TicketOf(SessionId session) const { return own_.queue.Of(session); }
  const Settings& settings() const { return own_.settings; }

 private:
  void TakeIn(const PoolDirectory::Changes& changes, TimePoint now);
  void DoomUnfit(TimePoint now);
  void Rebind(TimePoint now);
  void RebindTicket(Ticket* ticket, TimePoint now);
  void DropEmpty();
  void WakeSleepers(TimePoint now);
  void PassToken(TimePoint now);
  void ServeMarked(std::vector<Pool*>* looked_at, TimePoint now);
  void FillPools(std::vector<Pool*> pools, TimePoint now);

  Owners own_;
  SlotLife life_{&own_};
  RoomMaker room_{&own_, &life_};
  Supplier supplier_{&own_, &life_, &room_};
  Refuser refuser_{&own_, &room_};
  PoolFiller filler_{&own_, &life_, &room_};
};

}  // namespace polarx
