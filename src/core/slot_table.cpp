// All slots of the worker, by state; on the main thread.
#include "core/slot_table.h"

#include <cassert>
#include <utility>

namespace polarx {

Slot* SlotTable::Add(Pool* pool, TimePoint now) {
  assert(!pool->obsolete && pool->node->total() < pool->node->limits.max_size);
  std::list<Slot>& connecting = pool->list(SlotState::kConnecting);
  connecting.emplace_front();
  Slot* slot = &connecting.front();
  slot->id = next_++;
  slot->pool = pool;
  slot->self = connecting.begin();
  slot->age.created_at = slot->state_since = now;
  CountTotal(pool, 1);
  Count(slot, SlotState::kConnecting, 1);
  slots_.emplace(slot->id, slot);
  return slot;
}

// The node's pools with idle slots are in order of size.
void SlotTable::CountTotal(Pool* pool, int change) {
  Node* node = pool->node;
  const bool listed = node->with_idle_.erase({-pool->total_, pool->id}) > 0;
  pool->total_ += change;
  node->slots_ += change;
  if (listed) {
    node->with_idle_.emplace(std::pair(-pool->total_, pool->id), pool);
  }
}

void SlotTable::Count(Slot* slot, SlotState state, int change) {
  Pool* pool = slot->pool;
  Node* node = pool->node;
  counts_[static_cast<std::size_t>(state)] += change;
  node->counts_[static_cast<std::size_t>(state)] += change;
  assert(node->count(state) >= 0);
  const bool first_or_last = node->count(state) == (change > 0 ? 1 : 0);
  if (state == SlotState::kIdle && node->cell != nullptr && first_or_last) {
    node->cell->idle.store(change > 0 ? 1 : 0);
  }
  if (slot->age.is_new) {
    pool->new_[static_cast<std::size_t>(state)] += change;
  }
  if (slot->age.expiring) {
    CountExpiring(slot, state, change);
  }
  if (state == SlotState::kIdle) {
    const std::pair key(-pool->total_, pool->id);
    const int idle = pool->count(SlotState::kIdle);
    if (change > 0 && idle == 1) {
      node->with_idle_.emplace(key, pool);
    } else if (change < 0 && idle == 0) {
      node->with_idle_.erase(key);
    }
  }
}

void SlotTable::CountExpiring(Slot* slot, SlotState state, int change) {
  Pool* pool = slot->pool;
  pool->expiring_[static_cast<std::size_t>(state)] += change;
  pool->node->expiring_ += change;
  assert(pool->expiring_[static_cast<std::size_t>(state)] >= 0);
  if (state == SlotState::kIdle && change > 0) {
    pool->expiring_idle_.emplace(slot->id, slot);
  } else if (state == SlotState::kIdle) {
    pool->expiring_idle_.erase(slot->id);
  }
}

void SlotTable::Move(Slot* slot, SlotState to, TimePoint now) {
  assert(slot->state != to && slot->state != SlotState::kClosing);
  assert(to != SlotState::kConnecting);
  if (to == SlotState::kClosing) {
    SetExpiring(slot, false);
    SetSettled(slot);
  }
  Pool* pool = slot->pool;
  std::list<Slot>& target = pool->list(to);
  auto place = target.begin();
  while (to == SlotState::kIdle && place != target.end() && place->idle_since > slot->idle_since) {
    ++place;
  }
  target.splice(place, pool->list(slot->state), slot->self);
  Count(slot, slot->state, -1);
  Count(slot, to, 1);
  if (slot->state == SlotState::kIdle || to == SlotState::kIdle) {
    SetIdleEnd(pool);
  }
  if (slot->state == SlotState::kLeased) {
    pool->node->last_returned_ = now;
  }
  slot->state = to;
  slot->state_since = now;
}

// Seldom changes: slots are lent and come back at the other end.
void SlotTable::SetIdleEnd(Pool* pool) {
  const std::list<Slot>& idle = pool->list(SlotState::kIdle);
  const auto end = idle.empty() ? std::pair(TimePoint{}, SlotId{0})
                                : std::pair(idle.back().idle_since, idle.back().id);
  if (end == pool->idle_end_) {
    return;
  }
  if (pool->idle_end_.second != 0) {
    longest_idle_.erase({pool->idle_end_.first, pool->idle_end_.second, pool});
  }
  if (end.second != 0) {
    longest_idle_.emplace(end.first, end.second, pool);
  }
  pool->idle_end_ = end;
}

void SlotTable::MoveBehind(Slot* slot) {
  assert(slot->state == SlotState::kLeased);
  std::list<Slot>& leased = slot->pool->list(SlotState::kLeased);
  leased.splice(leased.begin(), leased, slot->self);
}

void SlotTable::SetExpiring(Slot* slot, bool expiring) {
  assert(!expiring || slot->state != SlotState::kClosing);
  if (slot->age.expiring == expiring) {
    return;
  }
  if (expiring) {
    SetSettled(slot);
  }
  slot->age.expiring = expiring;
  CountExpiring(slot, slot->state, expiring ? 1 : -1);
}

void SlotTable::SetSettled(Slot* slot) {
  if (std::exchange(slot->age.is_new, false)) {
    --slot->pool->new_[static_cast<std::size_t>(slot->state)];
  }
}

void SlotTable::Remove(Slot* slot) {
  assert(slot->state == SlotState::kClosing && !slot->age.expiring && !slot->age.is_new);
  Pool* pool = slot->pool;
  CountTotal(pool, -1);
  Count(slot, SlotState::kClosing, -1);
  slots_.erase(slot->id);
  pool->list(SlotState::kClosing).erase(slot->self);
}

Slot* SlotTable::Find(SlotId slot) const {
  const auto found = slots_.find(slot);
  return found == slots_.end() ? nullptr : found->second;
}

}  // namespace polarx
