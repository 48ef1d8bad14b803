// The order of a turn, and what sessions and administrators ask for; on the main thread.
#include "core/pool_book.h"

#include <algorithm>
#include <cassert>
#include <memory>
#include <utility>

namespace polarx {

// --- sessions -----------------------------------------------------------------------------------

void PoolBook::Request(SessionId session, std::uint32_t request,
                       std::span<const protocol::Wanted> wanted, Duration queue_timeout, bool sets,
                       TimePoint now, LeaseCell* cells) {
  assert(TicketOf(session) == nullptr);
  auto ticket = std::make_unique<Ticket>();
  ticket->session = session;
  ticket->request = request;
  ticket->arrived_at = now;
  ticket->sets = sets;
  ticket->cells = cells;
  supplier_.CountRequest();
  for (const protocol::Wanted& want : wanted) {
    const MappingEntry* entry = own_.directory.FindMapping(want.node, want.role);
    assert(entry != nullptr);
    if (entry->pool == nullptr) {
      own_.events->Reject(*ticket, entry->definition.status);
      return;
    }
    ticket->wants.push_back({.node = want.node,
                             .role = want.role,
                             .pool = entry->pool,
                             .restricted = entry->definition.restricted});
  }
  own_.dispatcher.MarkWanted(own_.queue.Add(std::move(ticket), queue_timeout, own_.settings, now));
}

bool PoolBook::Withdraw(SessionId session, std::uint32_t request) {
  Ticket* ticket = own_.queue.Of(session);
  if (ticket == nullptr || ticket->request != request) {
    return false;
  }
  refuser_.Reject(ticket, Status(sqlstate::kQueryCanceled, "request was withdrawn"));
  return true;
}

bool PoolBook::Release(SessionId session, LeaseId lease, protocol::ReleaseKind kind, TimePoint now,
                       std::vector<std::string> verify) {
  Slot* slot = FindLease(lease);
  if (slot == nullptr || slot->lease.session != session) {
    return false;
  }
  LeaseTaker(&own_).EndUse(slot, now);
  life_.ComeBack(slot, kind, now, std::move(verify));
  return true;
}

void PoolBook::Abandon(SessionId session, LeaseId lease, TimePoint now) {
  Slot* slot = FindLease(lease);
  const parking::State state =
      slot == nullptr ? parking::State::kGone : LeaseTable::TakeParked(slot);
  if (state == parking::State::kGone) {
    (void)Release(session, lease, protocol::ReleaseKind::kClose, now);
  } else {
    slot->parking.reset_sent = state == parking::State::kResetSent;
    (void)Release(session, lease, protocol::ReleaseKind::kClean, now);
  }
}

bool PoolBook::Return(SessionId session, LeaseId lease, TimePoint now) {
  Slot* slot = FindLease(lease);
  if (slot == nullptr || slot->lease.session != session) {
    return false;
  }
  LeaseTaker(&own_).EndUnseen(slot, now);
  life_.Settle(slot, now);
  return true;
}

// --- operation ----------------------------------------------------------------------------------

void PoolBook::OnPing(NodeId id, bool up, double milliseconds, const Status& status,
                      TimePoint now) {
  Node* node = own_.directory.FindNode(id);
  if (node == nullptr) {
    return;
  }
  node->ping_ms = up ? milliseconds : node->ping_ms;
  const bool held_off = node->hold_off.active();
  own_.gate.OnPing(node, up, status, now);
  if (held_off && !node->hold_off.active()) {
    own_.dispatcher.MarkAll(*node);
  }
}

int PoolBook::Clean(NodeId node, const std::string& remote_user, TimePoint now) {
  int count = 0;
  for (const auto& [id, pool] : own_.directory.pools()) {
    if ((node == 0 || pool->node->definition.id == node) &&
        (remote_user.empty() || pool->remote_user == remote_user)) {
      count += pool->total() - pool->count(SlotState::kClosing);
      life_.DoomAll(pool.get(), CloseReason::kCleaned, now);
    }
  }
  return count;
}

Slot* PoolBook::TakeForPing(Pool* pool, TimePoint now) {
  Slot* slot = life_.LiveIdle(pool, now);
  if (slot != nullptr) {
    life_.Check(slot, now);
  }
  return slot;
}

void PoolBook::Pause(NodeId which, bool paused, TimePoint now) {
  for (Node* node : own_.directory.SetPaused(which, paused)) {
    Supplier::Publish(node);
    for (Pool* pool : node->pools) {
      if (paused) {
        life_.TakeAllParked(pool, now);
      }
    }
    own_.dispatcher.MarkAll(*node);
  }
  own_.queue.NotePauses(now);
}

void PoolBook::ResetStats() {
  supplier_.ResetCounters();
  for (const auto& [id, pool] : own_.directory.pools()) {
    pool->counters = pool->printed_counters = {};
    pool->acquire_time = pool->hold_time = pool->printed_acquire_time = {};
  }
}

void PoolBook::SetSurvivors(const std::map<NodeId, int>& survivors) {
  for (Node* node : own_.directory.SetSurvivors(survivors)) {
    own_.dispatcher.MarkAll(*node);
  }
}

void PoolBook::CountParked() {
  for (const auto& [id, pool] : own_.directory.pools()) {
    pool->parked = 0;
    for (Slot& slot : pool->list(SlotState::kLeased)) {
      LeaseTable::CountRetakes(&slot);
      pool->parked += slot.parked() ? 1 : 0;
    }
  }
}

// --- a turn -------------------------------------------------------------------------------------

void PoolBook::EndTurn(TimePoint now) {
  life_.CollectDue(now);
  WakeSleepers(now);
  own_.dispatcher.WakeStarving();
  life_.FireTimers(now);
  PassToken(now);
  std::vector<Pool*> looked_at;
  ServeMarked(&looked_at, now);
  // What came back in this very turn has been handed out first.
  refuser_.RejectExpired(now);
  ServeMarked(&looked_at, now);
  FillPools(std::move(looked_at), now);
  own_.queue.EndTurn();
  if (own_.directory.has_retired()) {
    DropEmpty();
  }
}

TimePoint PoolBook::NextDeadline() const {
  return std::min({own_.queue.NextTime(), own_.gate.NextTime(), own_.dispatcher.NextTime(),
                   own_.upkeep.NextDeadline(), own_.leases.NextDeadline()});
}

Urgency PoolBook::TakeUrgencyOfResets() {
  const bool hurry = life_.TakeHurry();
  if (!own_.queue.empty() || own_.directory.has_retired()) {
    return Urgency::kAwaited;
  }
  return hurry ? Urgency::kAtOnce : Urgency::kMayWait;
}

void PoolBook::WakeSleepers(TimePoint now) {
  while (const auto id = own_.dispatcher.TakeDue(now)) {
    own_.dispatcher.Mark(own_.directory.FindPool(*id));
  }
  while (const auto id = own_.gate.TakeDue(now)) {
    Pool* pool = own_.directory.FindPool(*id);
    own_.gate.EndTrial(pool, now);
    own_.dispatcher.Mark(pool);
  }
}

// Whom slots were kept for, and for whom they are kept now, both are looked at.
void PoolBook::PassToken(TimePoint now) {
  const Ticket* before = own_.queue.holder();
  if (own_.queue.PassToken(now)) {
    own_.dispatcher.MarkWanted(before);
    own_.dispatcher.MarkWanted(own_.queue.holder());
  }
}

void PoolBook::ServeMarked(std::vector<Pool*>* looked_at, TimePoint now) {
  const Dispatcher::Supply supply{
      [&](Pool* pool) { supplier_.Begin(pool, now); },
      [&](Ticket* ticket, Pool* pool) { return supplier_.Serve(ticket, pool, now); },
      [&](Ticket* ticket) { (void)supplier_.TryGrant(ticket, now); }};
  while (own_.dispatcher.has_marked()) {
    const std::vector<Pool*> round = own_.dispatcher.TakeMarked();
    for (Pool* pool : round) {
      supplier_.TellLack(pool, now);
    }
    if (!own_.queue.empty()) {
      (void)life_.CollectReturned(now);
    }
    const std::vector<Pool*> visited = own_.dispatcher.Dispatch(round, supply);
    for (Pool* pool : visited) {
      supplier_.TellLack(pool, now);
    }
    for (Pool* pool : visited) {
      refuser_.RejectHopeless(pool, now);
    }
    looked_at->insert(looked_at->end(), round.begin(), round.end());
  }
}

// Each round opens or warms up what a node has room for, until no pool waits for what there is.
void PoolBook::FillPools(std::vector<Pool*> pools, TimePoint now) {
  while (!pools.empty()) {
    for (std::size_t next = 0; next < pools.size(); ServeMarked(&pools, now)) {
      for (; next < pools.size(); ++next) {
        filler_.CloseDispensable(pools[next], now);
      }
    }
    if (filler_.LacksAny(pools, now)) {
      (void)life_.CollectReturned(now);
      ServeMarked(&pools, now);
      filler_.TakeRested(pools, now);
      ServeMarked(&pools, now);
    }
    filler_.Fill(pools, now);
    for (Pool* pool : pools) {
      filler_.WarmUp(pool, now);
    }
    filler_.PassTurns(pools, now);
    pools.clear();
    ServeMarked(&pools, now);
  }
}

}  // namespace polarx
