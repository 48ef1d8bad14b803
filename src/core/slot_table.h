// All slots of the worker: in which list each one is, how many of each kind a pool and a node have,
// and which idle one is given up first; owned by the main thread.
#pragma once

#include <array>
#include <set>
#include <tuple>
#include <unordered_map>

#include "core/pool.h"

namespace polarx {

// The lists themselves lie in the pools, the counts in pools and nodes: all may read them, this
// class alone changes them. A slot is in one list, and a node never gets a slot above its maximum.
class SlotTable {
 public:
  SlotTable() = default;
  SlotTable(const SlotTable&) = delete;
  SlotTable& operator=(const SlotTable&) = delete;

  // A new slot, connecting. The node must be below its maximum.
  Slot* Add(Pool* pool, TimePoint now);
  // Changes the slot's state, of which a closing one has no other. The slot goes to the front of
  // its new list, but among the idle ones, which are in order of use, where idle_since says.
  void Move(Slot* slot, SlotState to, TimePoint now);
  // Makes a leased slot the last to be looked at among the leased ones of its pool.
  void MoveBehind(Slot* slot);
  // Says whether the slot is near the end of its life. A closing one is not.
  void SetExpiring(Slot* slot, bool expiring);
  // The slot can stand in for one that expires.
  void SetSettled(Slot* slot);
  // Forgets a closing slot, which is not valid any more then.
  void Remove(Slot* slot);

  // How many slots of all nodes are in that state.
  int count(SlotState state) const { return counts_[static_cast<std::size_t>(state)]; }
  // The slot that is idle longest, of the pools that `may_give_up(pool)` is true for; null: there
  // is none. Pools are asked in that order.
  template <typename MayGiveUp>
  Slot* LongestIdle(MayGiveUp may_give_up) const {
    for (const auto& [since, id, pool] : longest_idle_) {
      if (may_give_up(*pool)) {
        return &pool->list(SlotState::kIdle).back();
      }
    }
    return nullptr;
  }

  // Returns null if the slot is gone.
  Slot* Find(SlotId slot) const;
  const std::unordered_map<SlotId, Slot*>& all() const { return slots_; }

  // The pool of the node that is farthest above its minimum, of those with an idle slot; null if
  // there is none. `may_give_up(pool)` says whether an idle slot of that pool may be taken.
  template <typename MayGiveUp>
  static Pool* LargestWithIdle(const Node& node, MayGiveUp may_give_up) {
    for (const auto& [key, pool] : node.pools_with_idle()) {
      if (may_give_up(*pool)) {
        return pool;
      }
    }
    return nullptr;
  }

 private:
  // The time, the slot's number, and the pool that has it as the last of its idle ones.
  using IdleEnd = std::tuple<TimePoint, SlotId, Pool*>;

  void Count(Slot* slot, SlotState state, int change);
  static void CountTotal(Pool* pool, int change);
  void SetIdleEnd(Pool* pool);
  static void CountExpiring(Slot* slot, SlotState state, int change);

  std::unordered_map<SlotId, Slot*> slots_;
  std::array<int, kSlotStates> counts_{};
  std::set<IdleEnd> longest_idle_;
  SlotId next_ = 1;
};

}  // namespace polarx
