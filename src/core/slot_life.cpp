// What becomes of slots; on the main thread.
#include "core/slot_life.h"

#include <cassert>

namespace polarx {
namespace {

void Count(CloseReason reason, PoolCounters* counters) {
  switch (reason) {
    case CloseReason::kIdle:
      ++counters->closed_idle;
      break;
    case CloseReason::kLifetime:
      ++counters->closed_lifetime;
      break;
    case CloseReason::kMemory:
      ++counters->closed_memory;
      break;
    case CloseReason::kError:
    case CloseReason::kRequested:
      ++counters->closed_error;
      break;
    case CloseReason::kNone:
    case CloseReason::kObsolete:
    case CloseReason::kCleaned:
      break;
  }
}

std::string Megabytes(std::int64_t bytes) { return std::to_string((bytes + 524288) >> 20) + " MB"; }

}  // namespace

// --- orders -------------------------------------------------------------------------------------

void SlotLife::Open(Pool* pool, TimePoint now) {
  Slot* slot = own_.slots.Add(pool, now);
  ConnectGate::OnOrdered(slot);
  own_.driver->Connect(slot);
}

void SlotLife::Close(Slot* slot, CloseReason reason, TimePoint now) {
  assert(reason != CloseReason::kNone && slot->lease.id == 0);
  Count(reason, &slot->pool->counters);
  slot->doomed = reason;
  own_.slots.Move(slot, SlotState::kClosing, now);
  own_.dispatcher.Mark(slot->pool);
  own_.driver->Close(slot);
}

void SlotLife::Doom(Slot* slot, CloseReason reason, TimePoint now) {
  slot->doomed = reason;
  if (slot->state == SlotState::kLeased) {
    CallBack(slot, now);
  }
}

void SlotLife::DoomAll(Pool* pool, CloseReason reason, TimePoint now) {
  std::list<Slot>& idle = pool->list(SlotState::kIdle);
  while (!idle.empty()) {
    Close(&idle.front(), reason, now);
  }
  for (SlotState state : {SlotState::kConnecting, SlotState::kWarming, SlotState::kLeased,
                          SlotState::kResetting, SlotState::kChecking}) {
    std::list<Slot>& slots = pool->list(state);
    for (auto slot = slots.begin(); slot != slots.end();) {
      Doom(&*slot++, reason, now);
    }
  }
}

// The leased slot comes back as soon as its session can give it back.
void SlotLife::CallBack(Slot* slot, TimePoint now) {
  if (taker_.TakeOrBar(slot, now)) {
    ComeBack(slot, protocol::ReleaseKind::kClean, now);
  } else if (!std::exchange(slot->lease.recalled, true)) {
    own_.events->Recall(*slot);
  }
}

Slot* SlotLife::LiveIdle(Pool* pool, TimePoint now) {
  std::list<Slot>& idle = pool->list(SlotState::kIdle);
  while (!idle.empty()) {
    Slot* slot = &idle.front();
    if (now >= own_.upkeep.EndOf(*slot)) {
      Close(slot, CloseReason::kLifetime, now);
    } else if (!own_.driver->LooksAlive(*slot)) {
      NoteEnd(slot, "", now);
      Close(slot, CloseReason::kError, now);
    } else {
      return slot;
    }
  }
  return nullptr;
}

void SlotLife::Check(Slot* slot, TimePoint now) {
  own_.slots.Move(slot, SlotState::kChecking, now);
  own_.dispatcher.Mark(slot->pool);
}

void SlotLife::Warm(Slot* slot, TimePoint now) {
  own_.slots.Move(slot, SlotState::kWarming, now);
  own_.driver->Warm(slot);
}

void SlotLife::Lend(Slot* slot, const Ticket& ticket, RoleId role, TimePoint now) {
  Pool* pool = slot->pool;
  own_.slots.Move(slot, SlotState::kLeased, now);
  own_.leases.Begin(slot, {.session = ticket.session, .role = role, .cells = ticket.cells}, now);
  own_.upkeep.Arm(*slot);
  own_.gate.OnLent(pool);
  pool->ever_acquired = true;
  pool->last_acquired = now;
  NoteHurry(*pool);
  ++pool->counters.acquired;
  pool->counters.hits += ticket.waited ? 0 : 1;
  pool->acquire_time.Add(now - ticket.arrived_at);
}

// Resets wait for others while requests find idle slots.
void SlotLife::NoteHurry(const Pool& pool) {
  hurries_resets_ |= pool.count(SlotState::kResetting) > pool.count(SlotState::kIdle);
}

CloseReason SlotLife::ReasonToClose(const Slot& slot, TimePoint now) const {
  const Node& node = *slot.pool->node;
  if (slot.doomed != CloseReason::kNone) {
    return slot.doomed;
  }
  if (slot.pool->obsolete) {
    return CloseReason::kObsolete;
  }
  if (now >= own_.upkeep.EndOf(slot)) {
    return CloseReason::kLifetime;
  }
  // The limit was lowered.
  return node.total() - node.count(SlotState::kClosing) > node.limits.max_size ? CloseReason::kIdle
                                                                               : CloseReason::kNone;
}

void SlotLife::ComeBack(Slot* slot, protocol::ReleaseKind kind, TimePoint now,
                        std::vector<std::string> verify) {
  CloseReason reason =
      kind == protocol::ReleaseKind::kClose ? CloseReason::kRequested : ReasonToClose(*slot, now);
  // An expiring slot that comes back serves until another can stand in for it.
  if (reason == CloseReason::kNone && slot->age.expiring &&
      !own_.sizer.NeedsExpiring(*slot->pool, now)) {
    reason = CloseReason::kLifetime;
  }
  if (reason != CloseReason::kNone) {
    Close(slot, reason, now);
    return;
  }
  own_.slots.Move(slot, SlotState::kResetting, now);
  NoteHurry(*slot->pool);
  if (std::exchange(slot->parking.reset_sent, false)) {
    kind = protocol::ReleaseKind::kResetSent;
  }
  own_.driver->Reset(slot, {kind, now >= slot->age.check_at, std::move(verify)});
}

void SlotLife::Settle(Slot* slot, TimePoint now) {
  own_.dispatcher.Mark(slot->pool);
  if (const CloseReason reason = ReasonToClose(*slot, now); reason != CloseReason::kNone) {
    Close(slot, reason, now);
    return;
  }
  if (slot->state != SlotState::kConnecting || !own_.sizer.WarmsUp(*slot->pool, now)) {
    own_.slots.SetSettled(slot);
  }
  own_.slots.Move(slot, SlotState::kIdle, now);
  own_.upkeep.Arm(*slot);
}

bool SlotLife::CollectReturned(LeaseId lease, TimePoint now) {
  Slot* slot = own_.leases.Find(lease);
  if (slot == nullptr || !taker_.TakeReturned(slot, now)) {
    return false;
  }
  ComeBack(slot, protocol::ReleaseKind::kClean, now);
  return true;
}

int SlotLife::CollectReturned(TimePoint now) {
  int count = 0;
  const auto& grants = own_.leases.recent_grants();
  for (auto grant = grants.begin(); grant != grants.end();) {
    const LeaseId lease = (grant++)->second;  // its entry may go
    count += CollectReturned(lease, now) ? 1 : 0;
  }
  return count;
}

void SlotLife::CollectDue(TimePoint now) {
  while (Slot* slot = taker_.TakeRecentlyReturned(now)) {
    ComeBack(slot, protocol::ReleaseKind::kClean, now);
  }
}

void SlotLife::TakeAllParked(Pool* pool, TimePoint now) {
  while (Slot* slot = taker_.TakeParked(pool, TakeScope::kAllParked, now)) {
    ComeBack(slot, protocol::ReleaseKind::kClean, now);
  }
}

// --- events -------------------------------------------------------------------------------------

void SlotLife::OnConnected(Slot* slot, TimePoint now) {
  Pool* pool = slot->pool;
  ++pool->counters.connects;
  own_.gate.OnConnected(pool, now - slot->state_since, now);
  own_.upkeep.Begin(slot, now);
  pool->cold.push_back(slot->id);
  Settle(slot, now);
}

void SlotLife::OnConnectFailed(Slot* slot, const Status& status, FailureScope scope,
                               TimePoint now) {
  assert(slot->state == SlotState::kConnecting);
  Pool* pool = slot->pool;
  ++pool->counters.connect_failures;
  if (!pool->obsolete) {
    own_.gate.OnConnectFailed(*slot, status, scope, now);
  }
  own_.slots.Move(slot, SlotState::kClosing, now);
  Forget(slot);
  own_.dispatcher.MarkWaiting(*pool->node);  // they learn why
}

void SlotLife::OnReady(Slot* slot, TimePoint now) {
  assert(slot->state == SlotState::kWarming || slot->state == SlotState::kResetting ||
         slot->state == SlotState::kChecking);
  if (slot->state == SlotState::kWarming) {
    slot->pool->warmup_failed = false;
  }
  Settle(slot, now);
}

void SlotLife::OnWarmupFailed(Slot* slot, const std::string& why, bool lost, TimePoint now) {
  Pool* pool = slot->pool;
  if (slot->state != SlotState::kWarming) {
    return;
  }
  if (!std::exchange(pool->warmup_failed, true)) {
    own_.surroundings->Log("pooler.warmup_query failed on datanode \"" +
                               pool->node->definition.name + "\" as remote user \"" +
                               pool->remote_user + "\": " + why,
                           "");
  }
  own_.dispatcher.Mark(pool);
  if (lost) {
    PoolSizer::BlockWarmup(pool, now);
    Close(slot, CloseReason::kError, now);
  } else {
    own_.slots.Move(slot, SlotState::kResetting, now);
    NoteHurry(*pool);
    own_.driver->Reset(slot, {protocol::ReleaseKind::kInTransaction, false, {}});
  }
}

// The connection has ended by itself: if that was no use at all, its pool is held off.
void SlotLife::NoteEnd(Slot* slot, const std::string& why, TimePoint now) {
  if (own_.gate.OnEnded(*slot, why, now)) {
    ++slot->pool->counters.connect_failures;
  }
}

void SlotLife::OnBroken(Slot* slot, const std::string& why, TimePoint now) {
  NoteEnd(slot, why, now);
  switch (slot->state) {
    case SlotState::kLeased:
      slot->doomed = CloseReason::kError;
      if (taker_.TakeOrBar(slot, now)) {
        Close(slot, CloseReason::kError, now);
      }
      break;
    case SlotState::kConnecting:
    case SlotState::kClosing:
      break;
    case SlotState::kWarming:
    case SlotState::kResetting:
    case SlotState::kChecking:
      own_.surroundings->Log(
          "connection to datanode \"" + slot->pool->node->definition.name + "\" is closed: " + why,
          "");
      [[fallthrough]];
    case SlotState::kIdle:
      Close(slot, CloseReason::kError, now);
      break;
  }
}

void SlotLife::OnClosed(Slot* slot, bool timed_out) {
  if (timed_out && slot->doomed != CloseReason::kError && slot->doomed != CloseReason::kRequested) {
    ++slot->pool->counters.closed_error;
  }
  own_.dispatcher.Mark(slot->pool);
  Forget(slot);
}

void SlotLife::Forget(Slot* slot) {
  own_.dispatcher.Mark(slot->pool);
  own_.upkeep.Forget(*slot);
  own_.slots.Remove(slot);
}

// --- what is due --------------------------------------------------------------------------------

void SlotLife::FireTimers(TimePoint now) {
  while (const auto id = own_.upkeep.TakeDue(now)) {
    Slot* slot = own_.slots.Find(*id);
    DoWhatIsDue(slot, now);
    own_.upkeep.Arm(*slot);
  }
}

// The slot may be closing afterwards.
void SlotLife::DoWhatIsDue(Slot* slot, TimePoint now) {
  switch (own_.upkeep.WhatIsDue(*slot, now)) {
    case SlotUpkeep::Due::kNothing:
      break;
    case SlotUpkeep::Due::kExpiry:
      own_.slots.SetExpiring(slot, true);
      own_.dispatcher.Mark(slot->pool);
      if (slot->state == SlotState::kLeased) {
        CallBack(slot, now);
      }
      break;
    case SlotUpkeep::Due::kEnd:
      Close(slot, CloseReason::kLifetime, now);
      break;
    case SlotUpkeep::Due::kCheck:
      CheckMemory(slot, now);
      break;
    case SlotUpkeep::Due::kWarning:
      WarnOfLongLease(slot, now);
      break;
  }
}

// Idle slots of a pool are measured one at a time: the others are for users. A leased one is
// measured when it comes back: at once if it is parked.
void SlotLife::CheckMemory(Slot* slot, TimePoint now) {
  if (slot->state == SlotState::kLeased) {
    if (taker_.TakeOrBar(slot, now)) {
      ComeBack(slot, protocol::ReleaseKind::kClean, now);
    } else {
      slot->parking.barred = true;
    }
  } else if (slot->pool->count(SlotState::kChecking) > 0) {
    own_.upkeep.PostponeCheck(slot, now);
  } else {
    Check(slot, now);
    own_.driver->Measure(slot);
  }
}

// One that is parked is not held, and one that was taken again not for so long.
void SlotLife::WarnOfLongLease(Slot* slot, TimePoint now) {
  if (LeaseTable::CountRetakes(slot) || slot->parked()) {
    slot->lease.held_since = now;
    return;
  }
  slot->lease.warned = true;
  own_.events->LongLease(*slot, now - slot->lease.held_since);
}

void SlotLife::OnMeasured(Slot* slot, std::optional<std::int64_t> bytes, TimePoint now) {
  assert(slot->state == SlotState::kResetting || slot->state == SlotState::kChecking);
  Pool* pool = slot->pool;
  Node* node = pool->node;
  if (!bytes.has_value() && !std::exchange(node->memory_hidden, true)) {
    own_.surroundings->Log(
        "memory of sessions on datanode \"" + node->definition.name + "\" cannot be measured",
        "Remote user \"" + pool->remote_user +
            "\" may not read pg_backend_memory_contexts there, and the extension "
            "polarx_pooler is not installed.");
  }
  if (!own_.upkeep.NoteMemory(slot, bytes, now)) {
    Settle(slot, now);
    return;
  }
  own_.surroundings->Log(
      "connection to datanode \"" + node->definition.name + "\" is closed: its session, process " +
          std::to_string(slot->connection.remote_pid) + " of remote user \"" + pool->remote_user +
          "\", uses " + Megabytes(*bytes),
      "pooler.pool_session_memory_limit is " + Megabytes(own_.upkeep.memory_limit()) + ".");
  Close(slot, CloseReason::kMemory, now);
}

}  // namespace polarx
