// SlotTable: a slot is in one list, counts agree with lists, a node stays within its maximum.
#include "core/slot_table.h"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

namespace polarx {
namespace {

using std::chrono::seconds;

class SlotTableTest : public ::testing::Test {
 protected:
  SlotTableTest() {
    node_.limits.max_size = 4;
    for (PoolId id = 1; id <= 2; ++id) {
      pools_.push_back(std::make_unique<Pool>(id, &node_, MappingDefinition{}));
      node_.pools.push_back(pools_.back().get());
    }
  }
  Slot* Idle(Pool* pool, TimePoint since) {
    Slot* slot = table_.Add(pool, since);
    slot->idle_since = since;
    table_.Move(slot, SlotState::kIdle, since);
    return slot;
  }
  // Counts what stands in the lists, and whether each slot knows its place.
  void CheckLists() {
    std::array<int, kSlotStates> counts{};
    int total = 0;
    for (const auto& pool : pools_) {
      int of_pool = 0;
      for (int state = 0; state < kSlotStates; ++state) {
        for (const Slot& slot : pool->list(static_cast<SlotState>(state))) {
          EXPECT_EQ(static_cast<int>(slot.state), state);
          EXPECT_EQ(slot.pool, pool.get());
          EXPECT_EQ(&*slot.self, &slot);
          EXPECT_EQ(table_.Find(slot.id), &slot);
          ++counts[static_cast<std::size_t>(state)];
          ++of_pool;
        }
      }
      EXPECT_EQ(pool->total(), of_pool);
      total += of_pool;
    }
    for (int state = 0; state < kSlotStates; ++state) {
      EXPECT_EQ(node_.count(static_cast<SlotState>(state)),
                counts[static_cast<std::size_t>(state)]);
    }
    EXPECT_EQ(node_.slots(), total);
    EXPECT_EQ(table_.all().size(), static_cast<std::size_t>(total));
  }

  Node node_;
  std::vector<std::unique_ptr<Pool>> pools_;
  SlotTable table_;
  const TimePoint now_{seconds(1000)};
};

TEST_F(SlotTableTest, ASlotIsInOneListOnItsWholeWay) {
  Slot* slot = table_.Add(pools_[0].get(), now_);
  const SlotId id = slot->id;
  CheckLists();
  for (SlotState state :
       {SlotState::kWarming, SlotState::kIdle, SlotState::kLeased, SlotState::kResetting,
        SlotState::kIdle, SlotState::kChecking, SlotState::kClosing}) {
    table_.Move(slot, state, now_ + seconds(1));
    EXPECT_EQ(slot->state, state);
    EXPECT_EQ(slot->state_since, now_ + seconds(1));
    EXPECT_EQ(node_.total(), 1) << "a closing slot counts until it is gone";
    CheckLists();
  }
  table_.Remove(slot);
  EXPECT_EQ(table_.Find(id), nullptr);
  CheckLists();
}

TEST_F(SlotTableTest, NumbersAreNotUsedTwice) {
  Slot* first = table_.Add(pools_[0].get(), now_);
  const SlotId id = first->id;
  table_.Move(first, SlotState::kClosing, now_);
  table_.Remove(first);
  EXPECT_NE(table_.Add(pools_[0].get(), now_)->id, id);
}

TEST_F(SlotTableTest, IdleOnesAreInOrderOfUse) {
  Slot* second = Idle(pools_[0].get(), now_ + seconds(2));
  Slot* third = Idle(pools_[0].get(), now_ + seconds(3));
  Slot* first = Idle(pools_[0].get(), now_ + seconds(1));  // it comes back from a check
  const auto& idle = pools_[0]->list(SlotState::kIdle);
  EXPECT_EQ(&idle.front(), third);
  EXPECT_EQ(&*std::next(idle.begin()), second);
  EXPECT_EQ(&idle.back(), first);
}

TEST_F(SlotTableTest, SessionsSeeWhetherAnyIsIdle) {
  NodeCell cell;
  node_.cell = &cell;
  Slot* slot = Idle(pools_[0].get(), now_);
  Slot* other = Idle(pools_[1].get(), now_);
  EXPECT_NE(cell.idle.load(), 0u);
  table_.Move(slot, SlotState::kLeased, now_);
  EXPECT_NE(cell.idle.load(), 0u);
  table_.Move(other, SlotState::kLeased, now_);
  EXPECT_EQ(cell.idle.load(), 0u);
  table_.Move(slot, SlotState::kIdle, now_);
  EXPECT_NE(cell.idle.load(), 0u);
}

TEST_F(SlotTableTest, TheLargestPoolWithAnIdleSlotGivesUp) {
  Idle(pools_[0].get(), now_);
  EXPECT_EQ(SlotTable::LargestWithIdle(node_, [](const Pool&) { return true; }), pools_[0].get());
  Idle(pools_[1].get(), now_);
  Slot* lent = Idle(pools_[1].get(), now_);
  table_.Move(lent, SlotState::kLeased, now_);
  EXPECT_EQ(SlotTable::LargestWithIdle(node_, [](const Pool&) { return true; }), pools_[1].get());
  const Pool* kept = pools_[1].get();
  EXPECT_EQ(SlotTable::LargestWithIdle(node_, [kept](const Pool& pool) { return &pool != kept; }),
            pools_[0].get());
}

TEST_F(SlotTableTest, TheLongestIdleOfAllPoolsIsKnown) {
  const auto longest = [this](const Pool* but) {
    return table_.LongestIdle([but](const Pool& pool) { return &pool != but; });
  };
  EXPECT_EQ(longest(nullptr), nullptr);
  Slot* second = Idle(pools_[0].get(), now_ + seconds(2));
  Slot* third = Idle(pools_[1].get(), now_ + seconds(3));
  Slot* first = Idle(pools_[1].get(), now_ + seconds(1));
  EXPECT_EQ(longest(nullptr), first);
  EXPECT_EQ(longest(pools_[1].get()), second);
  table_.Move(first, SlotState::kLeased, now_);
  EXPECT_EQ(longest(nullptr), second);
  table_.Move(second, SlotState::kClosing, now_);
  EXPECT_EQ(longest(nullptr), third);
  EXPECT_EQ(longest(pools_[1].get()), nullptr);
  EXPECT_EQ(table_.count(SlotState::kIdle), 1);
  EXPECT_EQ(table_.count(SlotState::kClosing), 1);
}

TEST_F(SlotTableTest, ExpiringOnesAreNotLasting) {
  Slot* slot = Idle(pools_[0].get(), now_);
  Idle(pools_[0].get(), now_);
  table_.SetExpiring(slot, true);
  EXPECT_EQ(node_.lasting_total(), 1);
  EXPECT_EQ(pools_[0]->expiring_idle().count(slot->id), 1u);
  EXPECT_EQ(pools_[0]->lasting_sizes().idle, 1);
  EXPECT_EQ(pools_[0]->lasting_sizes().total, 1);
  table_.Move(slot, SlotState::kLeased, now_);
  EXPECT_EQ(pools_[0]->lasting_sizes().idle, 1);
  EXPECT_TRUE(pools_[0]->expiring_idle().empty()) << "it is lent";
  EXPECT_EQ(pools_[0]->expiring(), 1);
  table_.SetExpiring(slot, false);
  EXPECT_EQ(pools_[0]->lasting_sizes().total, 2);
  EXPECT_EQ(node_.lasting_total(), 2);
}

TEST_F(SlotTableTest, NewAndClosingOnesStandInForNobody) {
  Slot* slot = Idle(pools_[0].get(), now_);
  table_.Add(pools_[0].get(), now_);
  EXPECT_EQ(pools_[0]->settled_sizes().total, 0);
  table_.SetSettled(slot);
  EXPECT_EQ(pools_[0]->settled_sizes().idle, 1);
  EXPECT_EQ(pools_[0]->settled_sizes().connecting, 0);
  table_.Move(slot, SlotState::kLeased, now_);
  EXPECT_EQ(pools_[0]->settled_sizes().total, 1);
  EXPECT_EQ(pools_[0]->settled_sizes().idle, 0);
  table_.SetExpiring(slot, true);
  EXPECT_EQ(pools_[0]->settled_sizes().total, 0);
  table_.Move(slot, SlotState::kClosing, now_);
  EXPECT_EQ(pools_[0]->expiring(), 0);
  EXPECT_EQ(pools_[0]->settled_sizes().total, 0);
  EXPECT_EQ(pools_[0]->lasting_sizes().total, 2);
}

using SlotTableDeathTest = SlotTableTest;

TEST_F(SlotTableDeathTest, ANodeStaysWithinItsMaximum) {
  for (int i = 0; i < 4; ++i) {
    table_.Add(pools_[static_cast<std::size_t>(i % 2)].get(), now_);
  }
  EXPECT_DEATH(table_.Add(pools_[0].get(), now_), "max_size");
}

TEST_F(SlotTableDeathTest, AClosingSlotHasNoOtherState) {
  Slot* slot = table_.Add(pools_[0].get(), now_);
  table_.Move(slot, SlotState::kClosing, now_);
  EXPECT_DEATH(table_.Move(slot, SlotState::kIdle, now_), "kClosing");
}

}  // namespace
}  // namespace polarx
