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
      remote_database(mapping.remote_database) {
  groups.push_back(&singles);
}

Sizes Pool::sizes() const {
  return {.total = total_,
          .idle = count(SlotState::kIdle),
          .connecting = count(SlotState::kConnecting) + count(SlotState::kWarming),
          .resetting = count(SlotState::kResetting) + count(SlotState::kChecking)};
}

Sizes Pool::Without(Sizes sizes, const Counts& counts) {
  const auto of = [&counts](SlotState state) { return counts[static_cast<std::size_t>(state)]; };
  sizes.total -= Sum(counts);
  sizes.idle -= of(SlotState::kIdle);
  sizes.connecting -= of(SlotState::kConnecting) + of(SlotState::kWarming);
  sizes.resetting -= of(SlotState::kResetting) + of(SlotState::kChecking);
  return sizes;
}

Sizes Pool::lasting_sizes() const { return Without(sizes(), expiring_); }

Sizes Pool::settled_sizes() const {
  Sizes result = Without(lasting_sizes(), new_);
  result.total -= count(SlotState::kClosing);
  return result;
}

namespace {

const HoldOff* LaterOf(const HoldOff* one, const HoldOff* two) {
  if (one == nullptr || two == nullptr) {
    return one != nullptr ? one : two;
  }
  return two->failed_at() > one->failed_at() ? two : one;
}

}  // namespace

const HoldOff* Pool::ActiveHoldOff() const {
  return LaterOf(node->hold_off.active() ? &node->hold_off : nullptr,
                 hold_off.active() ? &hold_off : nullptr);
}

const HoldOff* Pool::ProvenHoldOff() const {
  return LaterOf(node->hold_off.proven() ? &node->hold_off : nullptr,
                 hold_off.proven() ? &hold_off : nullptr);
}

}  // namespace polarx
