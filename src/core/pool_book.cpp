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
  if (!tickets_.empty() || some_obsolete_) {
    return Urgency::kAwaited;
  }
  return hurry ? Urgency::kAtOnce : Urgency::kMayWait;
}

void PoolBook::MarkNode(Node* node) {
  for (Pool* pool : node->pools) {
    MarkDirty(pool);
  }
}

// What is idle in one pool of a full node may serve another by eviction.
void PoolBook::MarkWaiting(Node* node) {
  if (node->waiting == 0) {
    return;
  }
  for (Pool* pool : node->pools) {
    if (!pool->queue.empty()) {
      MarkDirty(pool);
    }
  }
}

Slot* PoolBook::FindLease(LeaseId lease) { return leases_.Find(lease); }

const Ticket* PoolBook::TicketOf(SessionId session) const {
  const auto found = waiting_sessions_.find(session);
  return found == waiting_sessions_.end() ? nullptr : found->second;
}

// --- sessions -----------------------------------------------------------------------------------

void PoolBook::Request(SessionId session, std::uint32_t request,
                       std::span<const protocol::Wanted> wanted, Duration queue_timeout, bool sets,
                       TimePoint now, LeaseCell* cells) {
  assert(TicketOf(session) == nullptr);
  auto ticket = std::make_unique<Ticket>();
  ticket->id = next_ticket_++;
  ticket->session = session;
  ticket->request = request;
  ticket->arrived_at = now;
  ticket->patient = queue_timeout > Duration::zero();
  ticket->sets = sets;
  ticket->cells = cells;
  ++counters_.client_request_conn_total;
  for (const protocol::Wanted& want : wanted) {
    const MappingEntry* entry = FindMapping(want.node, want.role);
    assert(entry != nullptr);
    if (entry->pool == nullptr) {
      events_->Reject(*ticket, entry->definition.status);
      return;
    }
    ticket->wants.push_back({.node = want.node,
                             .role = want.role,
                             .pool = entry->pool,
                             .restricted = entry->definition.restricted,
                             .place = {}});
  }
  if (ticket->patient) {
    ticket->deadline = now + queue_timeout;
    deadlines_.Set(ticket->id, ticket->deadline);
  }
  LimitPause(ticket.get(), now);
  for (Ticket::Want& want : ticket->wants) {
    Enqueue(ticket.get(), &want);
  }
  waiting_sessions_[session] = ticket.get();
  if (ticket->wants.size() > 1) {
    several_.emplace(ticket->id, ticket.get());
  }
  tickets_.emplace(ticket->id, std::move(ticket));
}

// By age: a ticket that moves to another pool keeps its turn.
void PoolBook::Enqueue(Ticket* ticket, Ticket::Want* want) {
  Pool* pool = want->pool;
  auto place = pool->queue.end();
  while (place != pool->queue.begin() && (*std::prev(place))->id > ticket->id) {
    --place;
  }
  want->place = pool->queue.insert(place, ticket);
  pool->impatient += ticket->patient ? 0 : 1;
  ++pool->node->waiting;
  MarkDirty(pool);
}

// Takes the ticket out of all queues; what it stood in the way of is looked at again.
void PoolBook::Leave(Ticket* ticket) {
  for (Ticket::Want& want : ticket->wants) {
    want.pool->queue.erase(want.place);
    want.pool->impatient -= ticket->patient ? 0 : 1;
    --want.pool->node->waiting;
    MarkDirty(want.pool);
    MarkWaiting(want.pool->node);
  }
  WakeStarved();
}

// Ends the ticket's life; it must have left the queues.
void PoolBook::Discard(Ticket* ticket) {
  deadlines_.Remove(ticket->id);
  waiting_sessions_.erase(ticket->session);
  several_.erase(ticket->id);
  tickets_.erase(ticket->id);
}

void PoolBook::RejectTicket(Ticket* ticket, const Status& status) {
  Leave(ticket);
  events_->Reject(*ticket, status);
  Discard(ticket);
}

bool PoolBook::Withdraw(SessionId session, std::uint32_t request) {
  const auto found = waiting_sessions_.find(session);
  if (found == waiting_sessions_.end() || found->second->request != request) {
    return false;
  }
  RejectTicket(found->second, Status(sqlstate::kQueryCanceled, "request was withdrawn"));
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
  MarkWaiting(pool->node);
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
  Duration& usual = pool->node->connect_time;
  const Duration took = now - slot->state_since;
  usual = usual == Duration::zero() ? took : (3 * usual + took) / 4;
  upkeep_.Begin(slot, now);
  RecoverNode(pool->node);
  if (pool->hold_off.Clear()) {
    const bool own = pool->hold_off.status().sqlstate() == sqlstate::kOutOfDescriptors;
    surroundings_->Log(
        "datanode \"" + pool->node->definition.name +
            (own ? "\" is connected to again as remote user \"" + pool->remote_user + "\""
                 : "\" lets remote user \"" + pool->remote_user + "\" in again"),
        "");
  }
  MarkNode(pool->node);
  pool->cold.push_back(slot->id);
  Settle(slot, now);
}

void PoolBook::OnConnectFailed(Slot* slot, const Status& status, FailureScope scope,
                               TimePoint now) {
  Pool* pool = slot->pool;
  ++pool->counters.connect_failures;
  const bool obsolete = pool->obsolete;
  const TimePoint began = slot->state_since;
  slots_.Move(slot, SlotState::kClosing, now);
  Forget(slot);
  if (!obsolete) {
    Fail(pool, status, scope, now);
    ProveByTicket(pool, began);
  }
  MarkNode(pool->node);
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

void PoolBook::OnBroken(Slot* slot, const std::string& why, TimePoint now) {
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
  MarkNode(pool->node);
}

void PoolBook::Forget(Slot* slot) {
  upkeep_.Forget(*slot);
  slots_.Remove(slot);
}

}  // namespace polarx
