// The end of a turn: who is served, what is opened or given up for whom; on the main thread.
//
// A dispatch goes through the tickets of the nodes where something has happened, oldest first over
// all of them. Each one is served, or counts on a slot that is on its way, or has one opened, taken
// or given up for it; where nothing is left its pool is over, and a node that has nothing to give
// as a whole. So older tickets have had their part of what there is before younger ones come, and
// a dispatch takes as many steps as there are slots that are not in use, and not as tickets wait.
// A ticket for several nodes comes after those for single ones while it lacks a slot elsewhere,
// too: nothing is kept for it, unless it has the token.
#include <algorithm>
#include <queue>
#include <utility>
#include <vector>

#include "core/pool_book.h"
#include "core/refusals.h"

namespace polarx {
namespace {

// So many times as long as usual.
constexpr int kSlowConnect = 4;

}  // namespace

void PoolBook::EndTurn(TimePoint now) {
  LookAtRecentGrants(now);
  WakeSleepers(now);
  WakeStarved();
  FireTimers(now);
  PassToken(now);
  std::vector<Pool*> filling;
  ServeDirty(&filling, now);
  // What came back in this very turn has been handed out first.
  ExpireTickets(now);
  ServeDirty(&filling, now);
  for (std::size_t next = 0; next < filling.size(); ServeDirty(&filling, now)) {
    for (; next < filling.size(); ++next) {
      CloseDispensable(filling[next], now);
    }
  }
  FillFromSessions(&filling, now);
  // Round-robin: one slot a pool and round, so that no pool's minimum waits for another's.
  for (bool opened = true; opened;) {
    opened = false;
    for (Pool* pool : filling) {
      opened |= Fill(pool, now);
    }
  }
  for (Pool* pool : filling) {
    WarmUp(pool, now);
  }
  if (directory_.has_retired()) {
    DropEmpty();
  }
  queue_.NoteWaited();
}

TimePoint PoolBook::NextDeadline() const {
  return std::min({queue_.NextTime(), gate_.NextTime(), sleepers_.Next(), upkeep_.NextDeadline(),
                   leases_.NextDeadline()});
}

void PoolBook::WakeSleepers(TimePoint now) {
  while (const auto id = sleepers_.TakeDue(now)) {
    MarkDirty(directory_.FindPool(*id));
  }
  while (const auto id = gate_.TakeDue(now)) {
    Pool* pool = directory_.FindPool(*id);
    gate_.EndTrial(pool, now);
    MarkDirty(pool);
  }
}

// Whom slots were kept for, and for whom they are kept now, both are looked at.
void PoolBook::PassToken(TimePoint now) {
  const Ticket* before = queue_.holder();
  if (queue_.PassToken(now)) {
    for (const Ticket* ticket : {before, queue_.holder()}) {
      for (const Ticket::Want& want :
           ticket == nullptr ? std::vector<Ticket::Want>() : ticket->wants) {
        MarkDirty(want.pool);
      }
    }
  }
}

void PoolBook::ExpireTickets(TimePoint now) {
  while (Ticket* ticket = queue_.TakeExpired(now)) {
    if (const Node* node = RequestQueue::PausedNode(*ticket); node != nullptr) {
      RejectTicket(ticket, PausedRefusal(*node, *ticket, now));
      continue;
    }
    // The first pool that has nothing to give is the one that it waited for.
    Pool* lacking = ticket->wants.front().pool;
    for (const Ticket::Want& want : ticket->wants) {
      if (want.pool->count(SlotState::kIdle) == 0) {
        lacking = want.pool;
        break;
      }
    }
    if (const HoldOff* hold_off = lacking->ActiveHoldOff(); hold_off != nullptr) {
      RejectTicket(ticket, hold_off->Refusal(now));
      continue;
    }
    ++lacking->counters.rejected;
    const Node& node = *lacking->node;
    const Status room = surroundings_->RoomFor(node);
    if (node.total() >= node.limits.max_size) {
      RejectTicket(ticket, FullStatus(node, *ticket, RequestQueue::PlaceOn(node, *ticket), now));
    } else {
      RejectTicket(ticket, room.ok() ? UnansweredRefusal(*lacking, *ticket,
                                                         settings_.pooler_connect_timeout, now)
                                     : room);
    }
  }
}

// --- a dispatch ---------------------------------------------------------------------------------

void PoolBook::ServeDirty(std::vector<Pool*>* looked_at, TimePoint now) {
  while (!dirty_.empty()) {
    std::vector<Pool*> round;
    round.swap(dirty_);
    for (Pool* pool : round) {
      pool->dirty = false;
    }
    for (Pool* pool : Dispatch(round, now)) {
      RejectHopeless(pool, now);
    }
    looked_at->insert(looked_at->end(), round.begin(), round.end());
  }
}

namespace {

// What comes next: by ticket, then pool, for a ticket for several nodes comes once for each.
struct Turn {
  TicketId ticket;
  Pool* pool;
  bool operator<(const Turn& other) const {
    return std::pair(ticket, pool->id) > std::pair(other.ticket, other.pool->id);
  }
};

}  // namespace

// Returns the pools that it has looked at: those, and others of their nodes.
std::vector<Pool*> PoolBook::Dispatch(const std::vector<Pool*>& round, TimePoint now) {
  std::priority_queue<Turn> turns;
  std::vector<Pool*> visited = round;
  std::vector<Turn> postponed;
  ++dispatch_;
  // A node's pools come in one after the other, each when the oldest ticket of the one before has
  // had its turn.
  const auto add_pool_behind = [&](const Node& node, TicketId ticket) {
    for (auto head = node.heads.upper_bound(ticket); head != node.heads.end(); ++head) {
      if (head->second->course.dispatch != dispatch_) {
        StartCourse(head->second, now);
        visited.push_back(head->second);
        turns.push({head->first, head->second});
        return;
      }
    }
  };
  for (Pool* pool : round) {
    UpdateLacking(pool, now);
  }
  if (!queue_.empty()) {
    (void)CollectReturned(now);
  }
  for (const Pool* pool : round) {
    Node* node = pool->node;
    if (node->waiting > 0 && !node->paused && node->dispatch != dispatch_) {
      node->dispatch = dispatch_;
      node->rooms = node->count(SlotState::kClosing);
      add_pool_behind(*node, 0);
    }
  }
  while (!turns.empty()) {
    const auto [id, pool] = turns.top();
    turns.pop();
    const Node& node = *pool->node;
    if (HasNothingToGive(node)) {
      continue;
    }
    if (const auto place = pool->queue.find(id); place != pool->queue.end()) {
      if (node.waiting_single > 0 && queue_.ComesLater(*place->second, *pool)) {
        postponed.push_back({id, pool});
      } else if (!pool->course.over) {
        pool->course.over = !Provide(place->second, pool, now);
      } else if (queue_.HasAll(*place->second)) {
        (void)TryGrant(place->second, now);  // what is idle is kept for nobody before it
      }
    }
    add_pool_behind(node, id);
    if (const auto behind = pool->queue.upper_bound(id);
        behind != pool->queue.end() && (!pool->course.over || pool->count(SlotState::kIdle) > 0)) {
      turns.push({behind->first, pool});
    }
  }
  for (const auto& [id, pool] : postponed) {
    ProvideLater(id, pool, now);
  }
  for (Pool* pool : visited) {
    UpdateLacking(pool, now);
  }
  return visited;
}

// What is left, for a ticket that others have come before.
void PoolBook::ProvideLater(TicketId id, Pool* pool, TimePoint now) {
  const auto place = pool->queue.find(id);
  if (place != pool->queue.end() && !pool->course.over && !HasNothingToGive(*pool->node)) {
    pool->course.over = !Provide(place->second, pool, now);
  }
}

// Every slot is lent, in use, and may not be taken back.
bool PoolBook::HasNothingToGive(const Node& node) {
  return node.total() >= node.limits.max_size && node.count(SlotState::kIdle) == 0 &&
         (node.none_parked || node.cell == nullptr);
}

// How many of the pool's tickets wait for more than what will be idle soon. Before the cells of its
// leases are looked at.
void PoolBook::UpdateLacking(Pool* pool, TimePoint now) {
  const bool waits = !pool->queue.empty() && !pool->node->paused;
  const SoonIdle coming = waits ? CountSoonIdle(pool, now) : SoonIdle();
  const int lacking = static_cast<int>(pool->queue.size()) - pool->count(SlotState::kIdle) -
                      coming.from_reset - coming.from_connect;
  SetLacking(pool, waits ? std::max(lacking, 0) : 0);
}

void PoolBook::StartCourse(Pool* pool, TimePoint now) {
  UpdateLacking(pool, now);
  const SoonIdle coming = CountSoonIdle(pool, now);
  pool->course = {.dispatch = dispatch_,
                  .claimed = 0,
                  .soon = coming.from_reset + coming.from_connect,
                  .late = pool->count(SlotState::kConnecting) - coming.from_connect,
                  .over = false};
}

// False: there is nothing for this ticket in the pool, and so nothing for those behind it.
bool PoolBook::Provide(Ticket* ticket, Pool* pool, TimePoint now) {
  Course& course = pool->course;
  if (queue_.HasAll(*ticket) && TryGrant(ticket, now)) {
    return true;
  }
  if (!ticket->single() && queue_.IdleFor(*ticket, *pool) > course.claimed) {
    ++course.claimed;
  } else if (course.soon > 0) {
    --course.soon;
  } else if (course.late > 0) {
    --course.late;
    (void)(TakeParkedFor(pool, TakeScope::kRestedOrUnused, now) ||
           TakeParkedFor(pool, TakeScope::kAllParked, now));
  } else {
    return Obtain(*ticket, pool, now);
  }
  return true;
}

// One slot more, by whatever way is open. Other sessions' parked leases that they still use only
// where no other way is left.
bool PoolBook::Obtain(const Ticket& ticket, Pool* pool, TimePoint now) {
  if (TakeParkedFor(pool, TakeScope::kRestedOrUnused, now)) {
    return true;
  }
  Node* node = pool->node;
  const bool may_open = gate_.MayOpen(*pool, ConnectPurpose::kRequest, now);
  if (may_open && HasRoom(*pool)) {
    Open(pool, now);
    if (node->cell != nullptr) {  // if it takes longer, sessions can help
      sleepers_.SetEarlier(pool->id, now + kSlowConnect * ConnectGate::UsualConnectTime(*node));
    }
    return true;
  }
  if (TakeParkedFor(pool, TakeScope::kAllParked, now)) {
    return true;
  }
  if (may_open) {
    MakeRoom(pool,
             static_cast<int>(pool->queue.size()) - pool->count(SlotState::kIdle) -
                 pool->count(SlotState::kConnecting) - CountSoonIdle(pool, now).from_reset,
             now);
    return false;
  }
  if (node->total() < node->limits.max_size || ConnectGate::IsHeldOff(*pool, now)) {
    return false;
  }
  if (PoolSizer::IsRefillBlocked(*node, now)) {
    sizer_.BlockRefill(node, now);
  }
  if (node->rooms > 0) {
    --node->rooms;
    return true;
  }
  return Evict(ticket, pool, now) || EvictParked(pool, now);
}

bool PoolBook::TakeParkedFor(Pool* pool, TakeScope scope, TimePoint now) {
  Slot* slot = TakeParked(pool, scope, now);
  if (slot != nullptr) {
    ComeBack(slot, protocol::ReleaseKind::kClean, now);
  }
  return slot != nullptr;
}

// Gives up the idle slot longest unused of another pool of the node: one that no older ticket waits
// with, where the ticket wants several nodes, for these two might go on taking slots from each
// other. What a ticket for one node takes is soon given back.
bool PoolBook::Evict(const Ticket& ticket, Pool* pool, TimePoint now) {
  Pool* victim = SlotTable::LargestWithIdle(*pool->node, [&](const Pool& other) {
    const bool looked_at = other.course.dispatch == dispatch_ && !ticket.single();
    return &other != pool && queue_.IdleFor(ticket, other) > (looked_at ? other.course.claimed : 0);
  });
  if (victim == nullptr) {
    return false;
  }
  CloseSlot(&victim->list(SlotState::kIdle).back(), CloseReason::kIdle, now);
  sizer_.BlockRefill(pool->node, now);
  return true;
}

// The ticket has all it wants, unless one turns out to be dead. True: it is gone, served or
// rejected.
bool PoolBook::TryGrant(Ticket* ticket, TimePoint now) {
  std::vector<Slot*> slots;
  slots.reserve(ticket->wants.size());
  for (const Ticket::Want& want : ticket->wants) {
    Slot* slot = LiveIdle(want.pool, now);
    if (slot == nullptr) {
      return false;
    }
    if (want.restricted && !slot->connection.password_used) {
      RejectTicket(ticket, Status(sqlstate::kPasswordRequired, "password is required",
                                  "Non-superuser cannot connect to datanode \"" +
                                      want.pool->node->definition.name +
                                      "\" if it does not request a password.",
                                  "The datanode's authentication method must be changed or "
                                  "password_required=false set in the user mapping attributes."));
      return true;
    }
    slots.push_back(slot);
  }
  const std::unique_ptr<Ticket> served = TakeOut(ticket);
  for (std::size_t i = 0; i < slots.size(); ++i) {
    Hand(slots[i], *ticket, ticket->wants[i].role, now);
  }
  if (ticket->waited) {
    ++counters_.client_request_from_thread;
    counters_.acquire_conn_time_us +=
        static_cast<std::uint64_t>((now - ticket->arrived_at).count());
  } else {
    ++counters_.client_request_from_hashtab;
  }
  events_->Grant(*ticket, slots);
  return true;
}

void PoolBook::Hand(Slot* slot, const Ticket& ticket, RoleId role, TimePoint now) {
  Pool* pool = slot->pool;
  slots_.Move(slot, SlotState::kLeased, now);
  leases_.Begin(slot, {.session = ticket.session, .role = role, .cells = ticket.cells}, now);
  upkeep_.Arm(*slot);
  gate_.OnLent(pool);
  pool->ever_acquired = true;
  pool->last_acquired = now;
  NoteHurry(*pool);
  ++pool->counters.acquired;
  pool->acquire_time.Add(now - ticket.arrived_at);
  if (ticket.waited) {
    ++counters_.acquire_conn_from_thread;
  } else {
    ++pool->counters.hits;
    ++counters_.acquire_conn_from_hashtab;
    counters_.acquire_conn_from_hashtab_and_set += ticket.sets ? 1 : 0;
  }
}

// The idle slot last used that still looks alive; dead ones are closed on the way.
Slot* PoolBook::LiveIdle(Pool* pool, TimePoint now) {
  std::list<Slot>& idle = pool->list(SlotState::kIdle);
  while (!idle.empty()) {
    Slot* slot = &idle.front();
    if (now >= upkeep_.EndOf(*slot)) {
      CloseSlot(slot, CloseReason::kLifetime, now);
    } else if (!driver_->LooksAlive(*slot)) {
      NoteEnd(slot, "", now);
      CloseSlot(slot, CloseReason::kError, now);
    } else {
      return slot;
    }
  }
  return nullptr;
}

void PoolBook::Open(Pool* pool, TimePoint now) {
  Slot* slot = slots_.Add(pool, now);
  ConnectGate::OnOrdered(slot);
  driver_->Connect(slot);
}

// Once it takes longer, a ticket gets a connection of its own, or what sessions give back.
PoolBook::SoonIdle PoolBook::CountSoonIdle(Pool* pool, TimePoint now) {
  SoonIdle coming;
  TimePoint until = kNever;
  for (const SlotState state :
       {SlotState::kConnecting, SlotState::kWarming, SlotState::kResetting, SlotState::kChecking}) {
    const bool opening = state == SlotState::kConnecting;
    const Duration usual =
        ConnectGate::UsualConnectTime(*pool->node) * (opening ? kSlowConnect : 1);
    for (const Slot& slot : pool->list(state)) {
      if (now - slot.state_since >= usual) {
        break;  // the front is the youngest
      }
      until = std::min(until, slot.state_since + usual);
      ++(opening ? coming.from_connect : coming.from_reset);
    }
  }
  if (until != kNever && (pool->node->cell != nullptr || coming.from_reset > 0)) {
    sleepers_.SetEarlier(pool->id, until);
  }
  return coming;
}

}  // namespace polarx
