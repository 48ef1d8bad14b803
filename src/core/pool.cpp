// A pool with its slots, and the node that it belongs to; on the main thread.
#include "core/pool.h"

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
