// Whose turn it is; on the main thread.
#include "core/dispatcher.h"

#include <cassert>
#include <utility>

namespace polarx {

// --- what is to be looked at --------------------------------------------------------------------

void Dispatcher::Mark(Pool* pool) {
  if (!std::exchange(pool->dirty, true)) {
    marked_.push_back(pool);
  }
}

void Dispatcher::MarkAll(const Node& node) {
  for (Pool* pool : node.pools) {
    Mark(pool);
  }
}

void Dispatcher::MarkWaiting(const Node& node) {
  for (const auto& [id, pool] : node.heads) {
    Mark(pool);
  }
}

void Dispatcher::MarkWanted(const Ticket* ticket) {
  if (ticket != nullptr) {
    for (const Ticket::Want& want : ticket->wants) {
      Mark(want.pool);
    }
  }
}

std::unique_ptr<Ticket> Dispatcher::TakeOut(Ticket* ticket) {
  MarkWanted(ticket);
  std::unique_ptr<Ticket> taken = queue_->Remove(ticket);
  WakeStarving();
  return taken;
}

void Dispatcher::WakeStarving() {
  ++happened_;
  for (const auto& [id, pool] : std::exchange(starving_, {})) {
    if (!pool->queue.empty()) {
      Mark(pool);
    }
  }
}

void Dispatcher::HoldUp(Pool* pool, HeldUp wait) {
  const auto index = static_cast<std::size_t>(wait);
  if (!std::exchange(pool->held_up[index], true)) {
    pool->node->held_up[index].push_back(pool);
  }
}

Pool* Dispatcher::FirstHeldUp(const Node& node, HeldUp wait) {
  const auto& waiting = node.held_up[static_cast<std::size_t>(wait)];
  return waiting.empty() ? nullptr : waiting.front();
}

Pool* Dispatcher::ReleaseFirst(Node* node, HeldUp wait) {
  Pool* first = FirstHeldUp(*node, wait);
  assert(first->held_up[static_cast<std::size_t>(wait)]);
  first->held_up[static_cast<std::size_t>(wait)] = false;
  node->held_up[static_cast<std::size_t>(wait)].pop_front();
  return first;
}

void Dispatcher::Forget(Pool* pool) {
  assert(!pool->dirty && pool->queue.empty());
  sleepers_.Remove(pool->id);
  starving_.erase(pool->id);
  for (std::size_t wait = 0; wait < pool->held_up.size(); ++wait) {
    if (pool->held_up[wait]) {
      std::erase(pool->node->held_up[wait], pool);
    }
  }
}

// --- a dispatch ---------------------------------------------------------------------------------

std::vector<Pool*> Dispatcher::TakeMarked() {
  std::vector<Pool*> round;
  round.swap(marked_);
  for (Pool* pool : round) {
    assert(pool->dirty);
    pool->dirty = false;
  }
  return round;
}

struct Dispatcher::Course {
  const Supply& supply;
  std::vector<Pool*> visited;
  std::priority_queue<Turn> turns;
  std::priority_queue<Turn> postponed;  // until all others have had theirs
};

// A node's pools come in one after the other, each when the oldest ticket of the one before has had
// its turn.
void Dispatcher::Enter(Node* node, Course* course) const {
  for (auto head = node->heads.upper_bound(node->entered); head != node->heads.end(); ++head) {
    node->entered = head->first;
    Pool* pool = head->second;
    if (std::exchange(pool->dispatch, dispatch_) != dispatch_) {
      pool->over = false;
      course->supply.begin(pool);
      course->visited.push_back(pool);
      for (TicketGroup* group : pool->groups) {
        AddBehind({0, pool, group}, &course->turns);
      }
      return;
    }
  }
}

void Dispatcher::AddBehind(const Turn& turn, std::priority_queue<Turn>* turns) {
  const auto& tickets = turn.group->tickets;
  if (const auto behind = tickets.upper_bound(turn.ticket); behind != tickets.end()) {
    turns->push({behind->first, turn.pool, turn.group});
  }
}

void Dispatcher::TakeTurn(const Turn& turn, Course* course) {
  Pool* pool = turn.pool;
  if (const auto place = turn.group->tickets.find(turn.ticket);
      place != turn.group->tickets.end()) {
    Ticket* ticket = place->second;
    if (pool->node->waiting_single > 0 && queue_->ComesLater(*ticket, *pool)) {
      course->postponed.push(turn);
      return;  // so do those behind it
    }
    if (!pool->over) {
      pool->over = !course->supply.serve(ticket, pool);
    } else if (queue_->HasAll(*ticket)) {
      course->supply.grant(ticket);  // what is idle is kept for nobody before it
    } else {
      return;
    }
  }
  if (!pool->over || pool->count(SlotState::kIdle) > 0) {
    AddBehind(turn, &course->turns);
  }
}

std::vector<Pool*> Dispatcher::Dispatch(const std::vector<Pool*>& round, const Supply& supply) {
  Course course{supply, round, {}, {}};
  ++dispatch_;
  for (const Pool* pool : round) {
    Node* node = pool->node;
    if (node->waiting > 0 && !node->paused &&
        std::exchange(node->dispatch, dispatch_) != dispatch_) {
      node->entered = 0;
      Enter(node, &course);
    }
  }
  while (!course.turns.empty()) {
    const Turn turn = course.turns.top();
    course.turns.pop();
    Node* node = turn.pool->node;
    if (node->has_nothing_to_give()) {
      continue;
    }
    ++turns_;
    TakeTurn(turn, &course);
    if (turn.ticket >= node->entered) {
      Enter(node, &course);
    }
  }
  while (!course.postponed.empty()) {
    const Turn turn = course.postponed.top();
    course.postponed.pop();
    Pool* pool = turn.pool;
    if (pool->over || pool->node->has_nothing_to_give()) {
      continue;
    }
    ++turns_;
    if (const auto place = turn.group->tickets.find(turn.ticket);
        place != turn.group->tickets.end()) {
      pool->over = !supply.serve(place->second, pool);
    }
    AddBehind(turn, &course.postponed);
  }
  return std::move(course.visited);
}

}  // namespace polarx
