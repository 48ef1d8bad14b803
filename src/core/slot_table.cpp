// All slots of the worker, by state; on the main thread.
#include "core/slot_table.h"

#include <cassert>

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
  ++pool->total_;
  ++pool->node->slots_;
  Count(slot, SlotState::kConnecting, 1);
  slots_.emplace(slot->id, slot);
  return slot;
}

void SlotTable::Count(Slot* slot, SlotState state, int change) {
  Pool* pool = slot->pool;
  Node* node = pool->node;
  node->counts_[static_cast<std::size_t>(state)] += change;
  assert(node->count(state) >= 0);
  if (state != SlotState::kIdle) {
    return;
  }
  if (node->cell != nullptr) {
    node->cell->idle.store(static_cast<std::uint32_t>(node->count(SlotState::kIdle)));
  }
  if (slot->age.replaced) {
    pool->replaced_idle_ += change;
  }
}

void SlotTable::Move(Slot* slot, SlotState to, TimePoint now) {
  assert(slot->state != to && slot->state != SlotState::kClosing);
  assert(to != SlotState::kConnecting);
  Pool* pool = slot->pool;
  std::list<Slot>& target = pool->list(to);
  auto place = target.begin();
  while (to == SlotState::kIdle && place != target.end() && place->idle_since > slot->idle_since) {
    ++place;
  }
  target.splice(place, pool->list(slot->state), slot->self);
  Count(slot, slot->state, -1);
  Count(slot, to, 1);
  slot->state = to;
  slot->state_since = now;
}

void SlotTable::MoveBehind(Slot* slot) {
  assert(slot->state == SlotState::kLeased);
  std::list<Slot>& leased = slot->pool->list(SlotState::kLeased);
  leased.splice(leased.begin(), leased, slot->self);
}

void SlotTable::SetReplaced(Slot* slot, bool replaced) {
  if (slot->age.replaced == replaced) {
    return;
  }
  slot->age.replaced = replaced;
  Pool* pool = slot->pool;
  const int idle = slot->state == SlotState::kIdle ? 1 : 0;
  if (replaced) {
    pool->replaced_.push_back(slot);
    pool->replaced_idle_ += idle;
  } else {
    std::erase(pool->replaced_, slot);
    pool->replaced_idle_ -= idle;
  }
}

void SlotTable::Remove(Slot* slot) {
  assert(slot->state == SlotState::kClosing && !slot->age.replaced);
  Pool* pool = slot->pool;
  --pool->total_;
  --pool->node->slots_;
  Count(slot, SlotState::kClosing, -1);
  slots_.erase(slot->id);
  pool->list(SlotState::kClosing).erase(slot->self);
}

Slot* SlotTable::Find(SlotId slot) const {
  const auto found = slots_.find(slot);
  return found == slots_.end() ? nullptr : found->second;
}

}  // namespace polarx
