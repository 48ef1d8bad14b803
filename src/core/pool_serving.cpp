// The end of a turn: tickets are served, slots opened and refilled; on the main thread.
#include <algorithm>
#include <utility>
#include <vector>

#include "core/pool_book.h"

namespace polarx {

namespace {

// So many times as long as usual.
constexpr int kSlowConnect = 4;

// Would a connect for a ticket of that pool be turned away now?
bool HeldOff(const Pool& pool, TimePoint now) {
  const HoldOff* hold_off = pool.ProvenHoldOff();
  return hold_off != nullptr && !hold_off->Permits(now);
}

// The oldest one that lacks nothing but a slot of this pool.
TicketId OldestInNeed(const Pool& pool) {
  const auto found =
      std::find_if(pool.queue.begin(), pool.queue.end(),
                   [&pool](const Ticket* ticket) { return !ticket->LacksElsewhere(pool); });
  return found == pool.queue.end() ? ~TicketId{0} : (*found)->id;
}

// Room on a node goes to the oldest ticket that it helps, whichever pool that waits in.
void SortByNeed(std::vector<Pool*>* pools) {
  std::vector<std::pair<TicketId, Pool*>> keyed;
  keyed.reserve(pools->size());
  for (Pool* pool : *pools) {
    keyed.emplace_back(OldestInNeed(*pool), pool);  // once each, for it walks a queue
  }
  std::stable_sort(keyed.begin(), keyed.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::transform(keyed.begin(), keyed.end(), pools->begin(),
                 [](const auto& entry) { return entry.second; });
}

// Is there an older one before it, in any of its queues, that could be served? Who lacks a slot
// elsewhere holds nobody up.
bool HasOlderAhead(const Ticket& ticket) {
  for (const Ticket::Want& want : ticket.wants) {
    for (const Ticket* older : want.pool->queue) {
      if (older == &ticket) {
        break;
      }
      if (!older->LacksElsewhere(*want.pool)) {
        return true;
      }
    }
  }
  return false;
}

}  // namespace

// Does another pool have an older ticket, which lacks nothing but a slot of it, and nothing for it?
// It would get what is idle in this one.
bool PoolBook::HasOlderInNeed(const Pool& other, const Pool& pool, const Ticket& ticket,
                              TimePoint now) {
  return &other != &pool && OldestInNeed(other) < ticket.id && !HeldOff(other, now) &&
         other.count(SlotState::kIdle) + other.sizes().connecting == 0 && !IsClaimed(pool, other);
}

bool Ticket::LacksElsewhere(const Pool& pool) const {
  return std::any_of(wants.begin(), wants.end(), [&pool](const Want& want) {
    return want.pool != &pool &&
           (want.pool->node->paused || want.pool->count(SlotState::kIdle) == 0);
  });
}

void PoolBook::EndTurn(TimePoint now) {
  LookAtRecentGrants(now);
  WakeSleepers(now);
  WakeStarved();
  FireTimers(now);
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
    SleepUntilRetry(*pool, now);  // what woke it may have come before that
  }
  if (some_obsolete_) {
    DropEmpty();
  }
}

void PoolBook::ServeDirty(std::vector<Pool*>* looked_at, TimePoint now) {
  while (!dirty_.empty()) {
    std::vector<Pool*> round;
    round.swap(dirty_);
    if (round.size() > 1) {
      SortByNeed(&round);
    }
    for (Pool* pool : round) {
      pool->dirty = false;
      Serve(pool, now);
    }
    for (Pool* pool : round) {
      OpenForTickets(pool, now);
    }
    for (Pool* pool : round) {
      RejectHopeless(pool, now);
    }
    looked_at->insert(looked_at->end(), round.begin(), round.end());
    if (dirty_.empty() && !several_.empty()) {
      ServeSeveral(now);
    }
  }
}

// One that wants several nodes may have waited for one before it, in a pool where nothing happened.
void PoolBook::ServeSeveral(TimePoint now) {
  for (auto place = several_.begin(); place != several_.end();) {
    Ticket* ticket = (place++)->second;
    (void)TryGrant(ticket, true, now);
  }
}

TimePoint PoolBook::NextDeadline() const {
  return std::min(
      {deadlines_.Next(), sleepers_.Next(), upkeep_.NextDeadline(), leases_.NextDeadline()});
}

void PoolBook::ExpireTickets(TimePoint now) {
  while (const auto due = deadlines_.TakeDue(now)) {
    Ticket* ticket = tickets_.at(*due).get();
    if (const Node* node = PausedNode(*ticket); node != nullptr) {
      RejectTicket(ticket, Status(sqlstate::kPoolFull,
                                  "datanode \"" + node->definition.name + "\" is paused" +
                                      WaitedText(*ticket, now),
                                  "", "Run pooler.resume() to let requests go on."));
      continue;
    }
    // The first pool that has nothing to give is the one that it waited for.
    const Pool* lacking = ticket->wants.front().pool;
    for (const Ticket::Want& want : ticket->wants) {
      if (want.pool->count(SlotState::kIdle) == 0) {
        lacking = want.pool;
        break;
      }
    }
    if (const HoldOff* hold_off = lacking->ActiveHoldOff(); hold_off != nullptr) {
      RejectTicket(ticket, hold_off->Refusal(now));
    } else if (const Status room = surroundings_->RoomFor(*lacking->node);
               !room.ok() && lacking->node->total() < lacking->node->limits.max_size) {
      ++pools_.at(lacking->id)->counters.rejected;
      RejectTicket(ticket, room);
    } else {
      ++pools_.at(lacking->id)->counters.rejected;
      RejectTicket(ticket, FullStatus(*lacking, *ticket, now));
    }
  }
}

void PoolBook::WakeSleepers(TimePoint now) {
  while (const auto pool = sleepers_.TakeDue(now)) {
    MarkDirty(pools_.at(*pool).get());
  }
}

void PoolBook::Serve(Pool* pool, TimePoint now) {
  for (auto place = pool->queue.begin(); place != pool->queue.end();) {
    Ticket* ticket = *place;
    if (TryGrant(ticket, false, now)) {
      place = pool->queue.begin();
    } else if (ticket->wants.size() == 1) {
      break;
    } else {
      ++place;  // it may lack a slot elsewhere, and nothing is reserved for it here
    }
  }
  for (auto ticket = pool->queue.rbegin(); ticket != pool->queue.rend() && !(*ticket)->waited;
       ++ticket) {
    (*ticket)->waited = true;
  }
}

// True: the ticket is gone, served or rejected. `again`: it has been tried since its pools changed.
bool PoolBook::TryGrant(Ticket* ticket, bool again, TimePoint now) {
  if (PausedNode(*ticket) != nullptr) {
    return false;
  }
  std::vector<Slot*> slots;
  slots.reserve(ticket->wants.size());
  bool have_idle = true;  // so many that it would be served but for others
  for (const Ticket::Want& want : ticket->wants) {
    have_idle = have_idle && want.pool->count(SlotState::kIdle) > 0;
  }
  if (ticket->wants.size() > 1 && (!have_idle || HasOlderAhead(*ticket))) {
    return false;
  }
  for (const Ticket::Want& want : ticket->wants) {
    if (MustYield(*want.pool, *ticket, now)) {
      // What is looked at again has no idle slot, so that none of its tickets comes here in turn.
      for (Pool* other : want.pool->node->pools) {
        if (have_idle && !again && HasOlderInNeed(*other, *want.pool, *ticket, now)) {
          MarkDirty(other);
        }
      }
      return false;
    }
  }
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
  Leave(ticket);
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
  Discard(ticket);
  return true;
}

void PoolBook::Hand(Slot* slot, const Ticket& ticket, RoleId role, TimePoint now) {
  Pool* pool = slot->pool;
  slots_.Move(slot, SlotState::kLeased, now);
  leases_.Begin(slot, {.session = ticket.session, .role = role, .cells = ticket.cells}, now);
  upkeep_.Arm(*slot);
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
      CloseSlot(slot, CloseReason::kError, now);
    } else {
      return slot;
    }
  }
  return nullptr;
}

// A node at its limit is shared in order of arrival: an idle slot is kept for an older ticket of
// another pool, which gets it by eviction.
bool PoolBook::MustYield(const Pool& pool, const Ticket& ticket, TimePoint now) const {
  const Node& node = *pool.node;
  if (node.waiting <= static_cast<int>(pool.queue.size()) || node.total() < node.limits.max_size) {
    return false;
  }
  int older = 0;
  int coming = 0;
  for (const Pool* other : node.pools) {
    coming += other->count(SlotState::kClosing);
    older += HasOlderInNeed(*other, pool, ticket, now) ? 1 : 0;
  }
  return older > coming;
}

bool PoolBook::CanOpen(const Pool& pool, bool for_ticket, TimePoint now) const {
  const Node& node = *pool.node;
  if (pool.obsolete || node.paused || node.total() >= node.limits.max_size) {
    return false;
  }
  const int connecting = node.count(SlotState::kConnecting);
  const auto holds = [for_ticket](const HoldOff& hold_off) {
    return for_ticket ? hold_off.proven() : hold_off.active();
  };
  if (holds(node.hold_off)) {
    return ProbeIsDue(pool, node.hold_off, now);
  }
  if (holds(pool.hold_off) && !ProbeIsDue(pool, pool.hold_off, now)) {
    return false;
  }
  if (node.hold_off.Crowded(now)
          ? connecting > 0
          : pool.hold_off.Crowded(now) && pool.count(SlotState::kConnecting) > 0) {
    return false;
  }
  return connecting < kParallelConnects;
}

void PoolBook::Open(Pool* pool, TimePoint now) { driver_->Connect(slots_.Add(pool, now)); }

void PoolBook::OpenForTickets(Pool* pool, TimePoint now) {
  if (pool->queue.empty() || pool->node->paused) {
    SetLacking(pool, 0);
    return;
  }
  (void)CollectReturned(now);
  const SoonIdle coming = CountSoonIdle(pool, now);
  // Connects that take longer will come, too, but nobody waits for them alone.
  int lacking = static_cast<int>(pool->queue.size()) - pool->count(SlotState::kIdle) -
                coming.from_reset - coming.from_connect;
  int missing = lacking - (pool->count(SlotState::kConnecting) - coming.from_connect);
  SetLacking(pool, std::max(lacking, 0));
  // Other sessions' parked leases: those that they still use only where no other way is left.
  for (const TakeScope scope : {TakeScope::kRestedOrUnused, TakeScope::kAllParked}) {
    while (lacking > 0) {
      Slot* slot = TakeParked(pool, scope, now);
      if (slot == nullptr) {
        break;
      }
      ComeBack(slot, protocol::ReleaseKind::kClean, now);
      --lacking;
      --missing;
    }
    while (scope == TakeScope::kRestedOrUnused && missing > 0 && CanOpen(*pool, true, now) &&
           HasRoom(*pool)) {
      Open(pool, now);
      if (pool->node->cell != nullptr) {  // if it takes longer, sessions can help
        sleepers_.SetEarlier(pool->id, now + kSlowConnect * UsualConnectTime(*pool->node));
      }
      --lacking;
      --missing;
    }
  }
  SetLacking(pool, std::max(lacking, 0));
  if (missing > 0 && CanOpen(*pool, true, now)) {
    MakeRoom(pool, missing, now);
    return;
  }
  Node* node = pool->node;
  if (missing <= 0 || HeldOff(*pool, now) || node->total() < node->limits.max_size) {
    return;
  }
  if (PoolSizer::IsRefillBlocked(*node, now)) {
    sizer_.BlockRefill(node, now);
  }
  for (missing -= node->count(SlotState::kClosing); missing > 0; --missing) {
    if (!Evict(pool, now) && !EvictParked(pool, now)) {
      break;
    }
  }
}

// Once it takes longer, a ticket gets a connection of its own, or what sessions give back.
PoolBook::SoonIdle PoolBook::CountSoonIdle(Pool* pool, TimePoint now) {
  SoonIdle coming;
  TimePoint until = kNever;
  for (const SlotState state :
       {SlotState::kConnecting, SlotState::kWarming, SlotState::kResetting, SlotState::kChecking}) {
    const bool opening = state == SlotState::kConnecting;
    const Duration patience = UsualConnectTime(*pool->node) * (opening ? kSlowConnect : 1);
    for (const Slot& slot : pool->list(state)) {
      if (now - slot.state_since >= patience) {
        break;  // the front is the youngest
      }
      until = std::min(until, slot.state_since + patience);
      ++(opening ? coming.from_connect : coming.from_reset);
    }
  }
  if (until != kNever && (pool->node->cell != nullptr || coming.from_reset > 0)) {
    sleepers_.SetEarlier(pool->id, until);
  }
  return coming;
}

}  // namespace polarx
