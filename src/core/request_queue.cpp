// The requests that wait, in order of arrival; on the main thread.
#include "core/request_queue.h"

#include <algorithm>
#include <cassert>
#include <queue>
#include <utility>

namespace polarx {

Ticket* RequestQueue::Add(std::unique_ptr<Ticket> ticket, Duration queue_timeout,
                          const Settings& settings, TimePoint now) {
  assert(!ticket->wants.empty() && Of(ticket->session) == nullptr);
  Ticket* added = ticket.get();
  added->id = next_++;
  added->arrived_at = now;
  added->patient = queue_timeout > Duration::zero();
  added->answer_by = now + (added->patient ? queue_timeout : settings.pooler_connect_timeout);
  added->answer_by_late = added->patient ? added->answer_by
                                         : now + std::max<Duration>(settings.pooler_connect_timeout,
                                                                    settings.pooler_dn_set_timeout);
  by_session_.emplace(added->session, added);
  if (!added->single()) {
    several_.emplace(added->id, added);
    token_at_ = std::min(token_at_, now + kKeepAfter);
  }
  tickets_.emplace(added->id, std::move(ticket));
  answers_.Set(added->id, added->answer_by);
  EnterPools(added);
  NotePauses(added, now);
  return added;
}

std::unique_ptr<Ticket> RequestQueue::Remove(Ticket* ticket) {
  LeavePools(ticket);
  answers_.Remove(ticket->id);
  by_session_.erase(ticket->session);
  several_.erase(ticket->id);
  token_at_ = several_.empty() ? kNever : token_at_;
  auto entry = tickets_.extract(ticket->id);
  assert(!entry.empty());
  std::unique_ptr<Ticket> removed = std::move(entry.mapped());
  return removed;
}

Ticket* RequestQueue::Of(SessionId session) const {
  const auto found = by_session_.find(session);
  return found == by_session_.end() ? nullptr : found->second;
}

std::set<PoolId> RequestQueue::KeyOf(const Ticket& ticket) {
  std::set<PoolId> key;
  for (const Ticket::Want& want : ticket.wants) {
    key.insert(want.pool->id);
  }
  return key;
}

TicketGroup* RequestQueue::GroupOf(const Ticket& ticket) {
  if (ticket.single()) {
    return &ticket.wants.front().pool->singles;
  }
  const auto [place, is_new] = groups_.try_emplace(KeyOf(ticket));
  TicketGroup* group = &place->second;
  if (is_new) {
    for (const Ticket::Want& want : ticket.wants) {
      group->pools.push_back(want.pool);
      want.pool->groups.push_back(group);
    }
  }
  return group;
}

void RequestQueue::EnterPools(Ticket* ticket) {
  ticket->group = GroupOf(*ticket);
  ticket->group->tickets.emplace(ticket->id, ticket);
  for (const Ticket::Want& want : ticket->wants) {
    Pool* pool = want.pool;
    Node* node = pool->node;
    if (!pool->queue.empty()) {
      node->heads.erase(pool->queue.begin()->first);
    }
    const bool added = pool->queue.emplace(ticket->id, ticket).second;
    node->heads.emplace(pool->queue.begin()->first, pool);
    ++node->waiting;
    node->waiting_single += ticket->single() ? 1 : 0;
    if (!ticket->patient) {
      node->hurried.emplace(ticket->id, ticket);
    }
    assert(added);
    (void)added;
  }
}

void RequestQueue::LeavePools(Ticket* ticket) {
  if (ticket == holder_) {
    Keep(0);
    holder_ = nullptr;
    token_at_ = TimePoint{};
  }
  ticket->group->tickets.erase(ticket->id);
  if (!ticket->single() && ticket->group->tickets.empty()) {
    emptied_.insert(KeyOf(*ticket));
  }
  for (const Ticket::Want& want : ticket->wants) {
    Pool* pool = want.pool;
    Node* node = pool->node;
    node->heads.erase(pool->queue.begin()->first);
    const std::size_t left = pool->queue.erase(ticket->id);
    if (!pool->queue.empty()) {
      node->heads.emplace(pool->queue.begin()->first, pool);
    }
    --node->waiting;
    node->waiting_single -= ticket->single() ? 1 : 0;
    node->hurried.erase(ticket->id);
    assert(left == 1 && node->waiting >= 0);
    (void)left;
  }
}

void RequestQueue::EndTurn() {
  for (const auto& key : std::exchange(emptied_, {})) {
    const auto place = groups_.find(key);
    if (place != groups_.end() && place->second.tickets.empty()) {
      for (Pool* pool : place->second.pools) {
        std::erase(pool->groups, &place->second);
      }
      groups_.erase(place);
    }
  }
  for (auto place = tickets_.lower_bound(next_waited_); place != tickets_.end(); ++place) {
    place->second->waited = true;
  }
  next_waited_ = next_;
}

// --- until when ---------------------------------------------------------------------------------

const Node* RequestQueue::PausedNode(const Ticket& ticket) {
  for (const Ticket::Want& want : ticket.wants) {
    if (want.pool->node->paused) {
      return want.pool->node;
    }
  }
  return nullptr;
}

void RequestQueue::NotePauses(TimePoint now) {
  for (auto& [id, ticket] : tickets_) {
    NotePauses(ticket.get(), now);
  }
  token_at_ = several_.empty() ? kNever : TimePoint{};
}

void RequestQueue::NotePauses(Ticket* ticket, TimePoint now) {
  const bool was_paused = ticket->paused_at != TimePoint{};
  const bool paused = PausedNode(*ticket) != nullptr;
  if (ticket->patient || paused == was_paused) {
    return;
  }
  if (paused) {
    ticket->paused_at = now;
    answers_.Set(ticket->id, now + kPauseLimit);
  } else {
    const Duration pause = now - std::exchange(ticket->paused_at, TimePoint{});
    ticket->answer_by += pause;
    ticket->answer_by_late += pause;
    answers_.Set(ticket->id, ticket->answer_by);
  }
}

// Does a slot come back that it might get?
bool RequestQueue::AwaitsSlots(const Ticket& ticket) {
  return std::any_of(ticket.wants.begin(), ticket.wants.end(), [](const Ticket::Want& want) {
    const Node& node = *want.pool->node;
    return node.count(SlotState::kWarming) + node.count(SlotState::kResetting) +
               node.count(SlotState::kChecking) + node.count(SlotState::kClosing) >
           0;
  });
}

// Is an attempt that began with it about to end, by the same time-out?
bool RequestQueue::AwaitsAttempt(const Ticket& ticket) {
  return std::any_of(ticket.wants.begin(), ticket.wants.end(), [&](const Ticket::Want& want) {
    const std::list<Slot>& connecting = want.pool->list(SlotState::kConnecting);
    return std::any_of(connecting.begin(), connecting.end(), [&](const Slot& slot) {
      return slot.state_since >= ticket.arrived_at &&
             slot.state_since <= ticket.arrived_at + kOwnAttempt;
    });
  });
}

Ticket* RequestQueue::TakeExpired(TimePoint now) {
  while (const auto due = answers_.TakeDue(now)) {
    Ticket* ticket = tickets_.at(*due).get();
    if (ticket->paused_at == TimePoint{} && now < ticket->answer_by_late && AwaitsSlots(*ticket)) {
      ticket->answer_by = ticket->answer_by_late;
      answers_.Set(ticket->id, ticket->answer_by);
      continue;
    }
    if (ticket->paused_at == TimePoint{} && !ticket->patient && AwaitsAttempt(*ticket) &&
        !std::exchange(ticket->awaits_attempt, true)) {
      ticket->answer_by = now + kAttemptEnds;
      answers_.Set(ticket->id, ticket->answer_by);
      continue;
    }
    return ticket;
  }
  return nullptr;
}

// --- the token ----------------------------------------------------------------------------------

// Until when its nodes have turnover, for all that is known; the past: one of them has none, or
// lends nothing at all.
TimePoint RequestQueue::TurnoverUntil(const Ticket& ticket, TimePoint now) {
  TimePoint until = kNever;
  for (const Ticket::Want& want : ticket.wants) {
    const Node& node = *want.pool->node;
    // One that nobody has tried to connect to since is not held off any more.
    const HoldOff* hold_off = want.pool->ActiveHoldOff();
    if (node.paused || (hold_off != nullptr && !hold_off->Permits(now))) {
      return TimePoint{};
    }
    until = std::min(until, node.last_returned() + kTurnover);
    if (until <= now) {
      break;
    }
  }
  return until;
}

void RequestQueue::Keep(int slots) {
  for (const Ticket::Want& want : holder_->wants) {
    want.pool->kept = slots;
  }
}

bool RequestQueue::PassToken(TimePoint now) {
  const Ticket* before = holder_;
  token_at_ = kNever;
  if (holder_ != nullptr) {
    const TimePoint until = TurnoverUntil(*holder_, now);
    if (until > now) {
      token_at_ = until;
      return false;
    }
    Keep(0);
    holder_ = nullptr;
  }
  for (const auto& [id, ticket] : several_) {
    if (now < ticket->arrived_at + kKeepAfter) {
      token_at_ = ticket->arrived_at + kKeepAfter;
      break;
    }
    if (const TimePoint until = TurnoverUntil(*ticket, now); until > now) {
      holder_ = ticket;
      Keep(1);
      token_at_ = until;
      break;
    }
  }
  return holder_ != before;
}

int RequestQueue::IdleFor(const Ticket& ticket, const Pool& pool) const {
  const int idle = pool.count(SlotState::kIdle);
  const bool before = holder_ == nullptr || &ticket == holder_ || ticket.id < holder_->id;
  return before ? idle : std::max(idle - pool.kept, 0);
}

bool RequestQueue::HasAll(const Ticket& ticket) const {
  const auto lacks = [&](const Ticket::Want& want) {
    return want.pool->node->paused || IdleFor(ticket, *want.pool) == 0;
  };
  // What it lacked the last time it most likely still lacks.
  if (ticket.last_lacked < ticket.wants.size() && lacks(ticket.wants[ticket.last_lacked])) {
    return false;
  }
  const auto lacked = std::find_if(ticket.wants.begin(), ticket.wants.end(), lacks);
  ticket.last_lacked = static_cast<std::size_t>(lacked - ticket.wants.begin());
  return lacked == ticket.wants.end();
}

bool RequestQueue::ComesLater(const Ticket& ticket, const Pool& pool) const {
  if (ticket.single() || &ticket == holder_ || HasAll(ticket)) {
    return false;
  }
  return std::any_of(ticket.wants.begin() + static_cast<std::ptrdiff_t>(ticket.last_lacked),
                     ticket.wants.end(), [&](const Ticket::Want& want) {
                       return want.pool != &pool &&
                              (want.pool->node->paused || IdleFor(ticket, *want.pool) == 0);
                     });
}

// --- places -------------------------------------------------------------------------------------

TicketId RequestQueue::LastWithin(const Node& node, int count) {
  using Place = std::pair<TicketId, const Pool*>;
  std::priority_queue<Place, std::vector<Place>, std::greater<>> next;
  auto head = node.heads.begin();
  TicketId last = 0;
  while (count > 0) {
    // A pool comes in when its oldest ticket may be the next of all.
    while (head != node.heads.end() && (next.empty() || head->first < next.top().first)) {
      next.emplace(*head++);
    }
    if (next.empty()) {
      break;
    }
    const auto [id, pool] = next.top();
    next.pop();
    const auto place = pool->queue.find(id);
    if (place->second->single()) {
      last = id;
      --count;
    }
    if (const auto behind = std::next(place); behind != pool->queue.end()) {
      next.emplace(behind->first, pool);
    }
  }
  return last;
}

int RequestQueue::PlaceOn(const Node& node, const Ticket& ticket) {
  std::ptrdiff_t older = 0;
  for (const auto& [first, pool] : node.heads) {
    if (first >= ticket.id) {
      break;
    }
    older += std::distance(pool->queue.begin(), pool->queue.lower_bound(ticket.id));
  }
  return static_cast<int>(older) + 1;
}

}  // namespace polarx
