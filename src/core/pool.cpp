// A pool with its slots, and the node that it belongs to; on the main thread.
#include "core/pool.h"

#include <cassert>

namespace polarx {

const char* SlotStateName(SlotState state) {
  static constexpr const char* kNames[kSlotStates] = {"connecting", "warming",  "idle",   "leased",
                                                      "resetting",  "checking", "closing"};
  return kNames[static_cast<int>(state)];
}

Pool::Pool(PoolId pool_id, Node* owner, const MappingDefinition& mapping)
    : id(pool_id),
      node(owner),
      options(mapping.options),
      remote_user(mapping.remote_user),
      remote_database(mapping.remote_database) {}

Slot* Pool::AddSlot(SlotId slot_id, TimePoint now) {
  std::list<Slot>& connecting = list(SlotState::kConnecting);
  connecting.emplace_front();
  Slot* slot = &connecting.front();
  slot->id = slot_id;
  slot->pool = this;
  slot->self = connecting.begin();
  slot->created_at = slot->state_since = now;
  ++total_;
  ++node->slots;
  ++node->counts[static_cast<std::size_t>(SlotState::kConnecting)];
  return slot;
}

void Pool::Move(Slot* slot, SlotState to, TimePoint now) {
  assert(slot->pool == this && slot->state != to);
  assert(slot->state != SlotState::kClosing);
  std::list<Slot>& target = list(to);
  auto place = target.begin();
  while (to == SlotState::kIdle && place != target.end() && place->idle_since > slot->idle_since) {
    ++place;
  }
  target.splice(place, list(slot->state), slot->self);
  --node->counts[static_cast<std::size_t>(slot->state)];
  ++node->counts[static_cast<std::size_t>(to)];
  if (node->cell != nullptr && (slot->state == SlotState::kIdle || to == SlotState::kIdle)) {
    node->cell->idle.store(static_cast<std::uint32_t>(node->count(SlotState::kIdle)));
  }
  if (slot->replaced) {
    replaced_idle_ += (to == SlotState::kIdle ? 1 : 0) - (slot->state == SlotState::kIdle ? 1 : 0);
  }
  slot->state = to;
  slot->state_since = now;
}

void Pool::Remove(Slot* slot) {
  assert(slot->pool == this && slot->state == SlotState::kClosing && !slot->replaced);
  list(SlotState::kClosing).erase(slot->self);
  --total_;
  --node->slots;
  --node->counts[static_cast<std::size_t>(SlotState::kClosing)];
}

void Pool::SetReplaced(Slot* slot, bool replaced) {
  assert(slot->pool == this);
  if (slot->replaced == replaced) {
    return;
  }
  slot->replaced = replaced;
  const int idle = slot->state == SlotState::kIdle ? 1 : 0;
  if (replaced) {
    replaced_.push_back(slot);
    replaced_idle_ += idle;
  } else {
    std::erase(replaced_, slot);
    replaced_idle_ -= idle;
  }
}

Sizes Pool::sizes() const {
  return {.total = total_,
          .idle = count(SlotState::kIdle),
          .connecting = count(SlotState::kConnecting) + count(SlotState::kWarming),
          .resetting = count(SlotState::kResetting) + count(SlotState::kChecking)};
}

Sizes Pool::lasting_sizes() const {
  Sizes result = sizes();
  result.total -= static_cast<int>(replaced_.size());
  result.idle -= replaced_idle_;
  return result;
}

bool Pool::InUse(TimePoint now, std::chrono::seconds keepalive) const {
  return ever_acquired && (keepalive < std::chrono::seconds(0) || now - last_acquired < keepalive);
}

const HoldOff* Pool::ActiveHoldOff() const {
  return node->hold_off.active() ? &node->hold_off : hold_off.active() ? &hold_off : nullptr;
}

const HoldOff* Pool::ProvenHoldOff() const {
  return node->hold_off.proven() ? &node->hold_off : hold_off.proven() ? &hold_off : nullptr;
}

}  // namespace polarx
