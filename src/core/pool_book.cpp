// The book-keeping of all pools: what happens to sessions and slots; on the main thread.
#include "core/pool_book.h"

#include <algorithm>
#include <cassert>
#include <utility>

namespace polarx {

PoolBook::PoolBook(SlotDriver* driver, LeaseEvents* events, Surroundings* surroundings,
                   const Settings& settings, std::uint64_t seed, std::span<NodeCell> cells)
    : driver_(driver),
      events_(events),
      surroundings_(surroundings),
      settings_(settings),
      random_(static_cast<std::minstd_rand::result_type>(seed)),
      directory_(settings),
      gate_(surroundings, seed),
      sizer_(settings),
      upkeep_(settings, seed + 1),
      leases_(cells) {}

PoolBook::~PoolBook() = default;

void PoolBook::MarkDirty(Pool* pool) {
  if (!pool->dirty) {
    pool->dirty = true;
    dirty_.push_back(pool);
  }
}

// Resets wait for others while requests find idle slots.
void PoolBook::NoteHurry(const Pool& pool) {
  const int resetting = pool.count(SlotState::kResetting);
  hurries_resets_ |= resetting > pool.count(SlotState::kIdle);
}

Urgency PoolBook::TakeUrgencyOfResets() {
  const bool hurry = std::exchange(hurries_resets_, false);
  if (!queue_.empty() || directory_.has_retired()) {
    return Urgency::kAwaited;
  }
  return hurry ? Urgency::kAtOnce : Urgency::kMayWait;
}

void PoolBook::MarkNode(Node* node) {
  for (Pool* pool : node->pools) {
    MarkDirty(pool);
  }
}

// The pool's node has room for another slot or connect: for its tickets, whichever pool they wait
// in. The minima of the other pools come when none waits any more.
void PoolBook::MarkRoom(Pool* pool) {
  Node* node = pool->node;
  MarkDirty(pool);
  if (node->waiting > 0 && settings_.warmup_query.empty()) {
    node->others_later = true;
  } else {
    MarkNode(node);
  }
}

Slot* PoolBook::FindLease(LeaseId lease) { return leases_.Find(lease); }

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
  ++counters_.client_request_conn_total;
  for (const protocol::Wanted& want : wanted) {
    const MappingEntry* entry = directory_.FindMapping(want.node, want.role);
    assert(entry != nullptr);
    if (entry->pool == nullptr) {
      events_->Reject(*ticket, entry->definition.status);
      return;
    }
    ticket->wants.push_back({.node = want.node,
                             .role = want.role,
                             .pool = entry->pool,
                             .restricted = entry->definition.restricted});
    MarkDirty(entry->pool);
  }
  (void)queue_.Add(std::move(ticket), queue_timeout, settings_, now);
}

// The ticket waits no longer; what it stood in the way of is looked at again.
std::unique_ptr<Ticket> PoolBook::TakeOut(Ticket* ticket) {
  std::unique_ptr<Ticket> taken = queue_.Remove(ticket);
  for (const Ticket::Want& want : taken->wants) {
    MarkDirty(want.pool);
    if (want.pool->node->waiting == 0 && std::exchange(want.pool->node->others_later, false)) {
      MarkNode(want.pool->node);
    }
  }
  WakeStarved();
  return taken;
}

void PoolBook::RejectTicket(Ticket* ticket, const Status& status) {
  events_->Reject(*TakeOut(ticket), status);
}

bool PoolBook::Withdraw(SessionId session, std::uint32_t request) {
  Ticket* ticket = queue_.Of(session);
  if (ticket == nullptr || ticket->request != request) {
    return false;
  }
  RejectTicket(ticket, Status(sqlstate::kQueryCanceled, "request was withdrawn"));
  return true;
}

bool PoolBook::Release(SessionId session, LeaseId lease, protocol::ReleaseKind kind, TimePoint now,
                       std::vector<std::string> verify) {
  Slot* slot = FindLease(lease);
  if (slot == nullptr || slot->lease.session != session) {
    return false;
  }
  EndUse(slot, now);
  ComeBack(slot, kind, now, std::move(verify));
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

// The limit was lowered.
bool PoolBook::AboveLimit(const Node& node) const {
  return node.total() - node.count(SlotState::kClosing) > node.limits.max_size;
}

// What becomes of a slot that was leased.
void PoolBook::ComeBack(Slot* slot, protocol::ReleaseKind kind, TimePoint now,
                        std::vector<std::string> verify) {
  Pool* pool = slot->pool;
  if (kind == protocol::ReleaseKind::kClose) {
    CloseSlot(slot, CloseReason::kRequested, now);
  } else if (slot->doomed != CloseReason::kNone) {
    CloseSlot(slot, slot->doomed, now);
  } else if (now >= upkeep_.EndOf(*slot) || !IsOfUse(*slot, now)) {
    CloseSlot(slot, CloseReason::kLifetime, now);
  } else if (AboveLimit(*pool->node)) {
    CloseSlot(slot, CloseReason::kIdle, now);
  } else {
    slots_.Move(slot, SlotState::kResetting, now);
    NoteHurry(*pool);
    if (std::exchange(slot->parking.reset_sent, false)) {
      kind = protocol::ReleaseKind::kResetSent;
    }
    driver_->Reset(slot, {kind, now >= slot->age.check_at, std::move(verify)});
  }
}

bool PoolBook::Return(SessionId session, LeaseId lease, TimePoint now) {
  Slot* slot = FindLease(lease);
  if (slot == nullptr || slot->lease.session != session) {
    return false;
  }
  (void)EndLease(slot, now);
  Settle(slot, now);
  return true;
}

// --- slots --------------------------------------------------------------------------------------

// A slot with nothing left to do: idle, or closed if its time has come.
void PoolBook::Settle(Slot* slot, TimePoint now) {
  Pool* pool = slot->pool;
  MarkDirty(pool);
  if (slot->doomed != CloseReason::kNone) {
    CloseSlot(slot, slot->doomed, now);
  } else if (pool->obsolete) {
    CloseSlot(slot, CloseReason::kObsolete, now);
  } else if (now >= upkeep_.EndOf(*slot)) {
    CloseSlot(slot, CloseReason::kLifetime, now);
  } else if (AboveLimit(*pool->node)) {
    CloseSlot(slot, CloseReason::kIdle, now);
  } else {
    if (slot->state != SlotState::kConnecting || !sizer_.WarmsUp(*pool, now)) {
      slots_.SetSettled(slot);
    }
    slots_.Move(slot, SlotState::kIdle, now);
    upkeep_.Arm(*slot);
  }
}

void PoolBook::CloseSlot(Slot* slot, CloseReason reason, TimePoint now) {
  PoolCounters& counters = slot->pool->counters;
  switch (reason) {
    case CloseReason::kIdle:
      ++counters.closed_idle;
      break;
    case CloseReason::kLifetime:
      ++counters.closed_lifetime;
      break;
    case CloseReason::kMemory:
      ++counters.closed_memory;
      break;
    case CloseReason::kError:
    case CloseReason::kRequested:
      ++counters.closed_error;
      break;
    case CloseReason::kNone:
    case CloseReason::kObsolete:
    case CloseReason::kCleaned:
      break;
  }
  slot->doomed = reason;
  slots_.Move(slot, SlotState::kClosing, now);
  MarkDirty(slot->pool);
  driver_->Close(slot);
}

void PoolBook::OnConnected(Slot* slot, TimePoint now) {
  Pool* pool = slot->pool;
  ++pool->counters.connects;
  gate_.OnConnected(pool, now - slot->state_since, now);
  upkeep_.Begin(slot, now);
  MarkRoom(pool);
  pool->cold.push_back(slot->id);
  Settle(slot, now);
}

void PoolBook::OnConnectFailed(Slot* slot, const Status& status, FailureScope scope,
                               TimePoint now) {
  assert(slot->state == SlotState::kConnecting);
  Pool* pool = slot->pool;
  ++pool->counters.connect_failures;
  if (!pool->obsolete) {
    gate_.OnConnectFailed(*slot, status, scope, now);
  }
  slots_.Move(slot, SlotState::kClosing, now);
  Forget(slot);
  MarkNode(pool->node);
}

void PoolBook::OnPing(NodeId id, bool up, double milliseconds, const Status& status,
                      TimePoint now) {
  Node* node = directory_.FindNode(id);
  if (node == nullptr) {
    return;
  }
  node->ping_ms = up ? milliseconds : node->ping_ms;
  const bool held_off = node->hold_off.active();
  gate_.OnPing(node, up, status, now);
  if (held_off && !node->hold_off.active()) {
    MarkNode(node);
  }
}

void PoolBook::OnReady(Slot* slot, TimePoint now) {
  assert(slot->state == SlotState::kWarming || slot->state == SlotState::kResetting ||
         slot->state == SlotState::kChecking);
  if (slot->state == SlotState::kWarming) {
    slot->pool->warmup_failed = false;
    MarkNode(slot->pool->node);  // the next one's turn
  }
  Settle(slot, now);
}

// The connection has ended by itself: if that was no use at all, its pool is held off.
void PoolBook::NoteEnd(Slot* slot, const std::string& why, TimePoint now) {
  if (gate_.OnEnded(*slot, why, now)) {
    ++slot->pool->counters.connect_failures;
  }
}

void PoolBook::OnBroken(Slot* slot, const std::string& why, TimePoint now) {
  NoteEnd(slot, why, now);
  switch (slot->state) {
    case SlotState::kLeased:
      slot->doomed = CloseReason::kError;
      if (TakeOrBar(slot, now)) {
        CloseSlot(slot, CloseReason::kError, now);
      }
      break;
    case SlotState::kConnecting:
    case SlotState::kClosing:
      break;
    case SlotState::kWarming:
      MarkNode(slot->pool->node);  // the next one's turn
      [[fallthrough]];
    case SlotState::kResetting:
    case SlotState::kChecking:
      surroundings_->Log(
          "connection to datanode \"" + slot->pool->node->definition.name + "\" is closed: " + why,
          "");
      CloseSlot(slot, CloseReason::kError, now);
      break;
    case SlotState::kIdle:
      CloseSlot(slot, CloseReason::kError, now);
      break;
  }
}

void PoolBook::OnClosed(Slot* slot, bool timed_out) {
  Pool* pool = slot->pool;
  if (timed_out && slot->doomed != CloseReason::kError && slot->doomed != CloseReason::kRequested) {
    ++pool->counters.closed_error;
  }
  Forget(slot);
  MarkRoom(pool);
}

void PoolBook::Forget(Slot* slot) {
  upkeep_.Forget(*slot);
  slots_.Remove(slot);
}

}  // namespace polarx
