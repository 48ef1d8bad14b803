// How many slots a pool should have, by its lists alone: minima, reserve, what expires, what the
// datanode keeps for others.
#include "core/pool_sizer.h"

#include <gtest/gtest.h>

#include <vector>

#include "core/slot_table.h"

namespace polarx {
namespace {

using std::chrono::seconds;

class PoolSizerTest : public ::testing::Test {
 protected:
  PoolSizerTest() {
    settings_.pool_conn_keepalive = seconds(60);
    node_.limits = {.max_size = 20, .min_size = 3, .min_free = 2};
  }
  Slot* Add(SlotState state, bool is_new = false) {
    Slot* slot = table_.Add(&pool_, now_);
    slot->idle_since = now_;
    if (state != SlotState::kConnecting) {
      table_.Move(slot, state, now_);
    }
    if (!is_new) {
      table_.SetSettled(slot);
    }
    return slot;
  }
  void Use() {
    pool_.ever_acquired = true;
    pool_.last_acquired = now_;
  }
  PoolSizer sizer() const { return PoolSizer(settings_); }
  int Missing() { return sizer().CountMissing(pool_, now_); }
  int Dispensable() { return sizer().CountDispensable(pool_, now_); }

  Settings settings_;
  TimePoint now_{seconds(100000)};
  Node node_;
  Pool pool_{1, &node_, MappingDefinition{}};
  SlotTable table_;
};

TEST_F(PoolSizerTest, APoolIsInUseForAsLongAsKeepaliveSays) {
  EXPECT_FALSE(sizer().IsInUse(pool_, now_)) << "it never was";
  Use();
  EXPECT_EQ(sizer().ReserveOf(pool_, now_), 2);
  EXPECT_TRUE(sizer().IsInUse(pool_, now_ + seconds(59)));
  EXPECT_FALSE(sizer().IsInUse(pool_, now_ + seconds(60)));
  EXPECT_EQ(sizer().ReserveOf(pool_, now_ + seconds(60)), 0);
  settings_.pool_conn_keepalive = kOff;
  EXPECT_TRUE(sizer().IsInUse(pool_, now_ + seconds(100000)));
}

TEST_F(PoolSizerTest, TheMinimaAreMissing) {
  EXPECT_EQ(Missing(), 3);
  Add(SlotState::kConnecting, true);
  EXPECT_EQ(Missing(), 2) << "one is coming";
  Add(SlotState::kLeased);
  Add(SlotState::kLeased);
  EXPECT_EQ(Missing(), 0);
  Use();
  EXPECT_EQ(Missing(), 1) << "of the reserve";
  pool_.obsolete = true;
  EXPECT_EQ(Missing(), 0);
}

TEST_F(PoolSizerTest, WhatExpiresHasNoPlaceInTheMinima) {
  std::vector<Slot*> slots;
  for (int i = 0; i < 3; ++i) {
    slots.push_back(Add(SlotState::kIdle));
  }
  EXPECT_EQ(Missing(), 0);
  table_.SetExpiring(slots[0], true);
  EXPECT_EQ(Missing(), 1) << "its successor";
  Add(SlotState::kConnecting, true);
  EXPECT_EQ(Missing(), 0) << "it has one";
}

TEST_F(PoolSizerTest, WhatExpiresServesUntilItsSuccessorCan) {
  Slot* slots[] = {Add(SlotState::kIdle), Add(SlotState::kIdle), Add(SlotState::kIdle)};
  table_.SetExpiring(slots[0], true);
  EXPECT_EQ(Dispensable(), 0);
  Slot* successor = Add(SlotState::kConnecting, true);
  EXPECT_EQ(Dispensable(), 0);
  table_.Move(successor, SlotState::kIdle, now_);
  EXPECT_EQ(Dispensable(), 0) << "it is not warm yet";
  EXPECT_TRUE(sizer().NeedsExpiring(pool_, now_) == false) << "one is enough";
  table_.SetSettled(successor);
  EXPECT_EQ(Dispensable(), 1);
}

TEST_F(PoolSizerTest, OneThatIsLentBeforeItIsWarmStandsInForNobody) {
  Slot* slots[] = {Add(SlotState::kIdle), Add(SlotState::kIdle), Add(SlotState::kIdle)};
  table_.SetExpiring(slots[0], true);
  Slot* successor = Add(SlotState::kIdle, true);
  table_.Move(successor, SlotState::kLeased, now_);
  EXPECT_EQ(Dispensable(), 0);
}

TEST_F(PoolSizerTest, WhatNobodyNeedsGoesAsSoonAsItExpires) {
  for (int i = 0; i < 4; ++i) {
    Add(SlotState::kIdle);
  }
  table_.SetExpiring(&pool_.list(SlotState::kIdle).front(), true);
  EXPECT_EQ(Missing(), 0);
  EXPECT_EQ(Dispensable(), 1);
}

TEST_F(PoolSizerTest, OfAFullNodeWhatExpiresGoesOneByOne) {
  node_.limits = {.max_size = 4, .min_size = 0, .min_free = 4};
  Use();
  for (int i = 0; i < 4; ++i) {
    table_.SetExpiring(Add(SlotState::kIdle), true);
  }
  EXPECT_EQ(Dispensable(), 1);
  Slot* first = pool_.expiring_idle().begin()->second;
  table_.Move(first, SlotState::kClosing, now_);
  EXPECT_EQ(Dispensable(), 0) << "room is coming";
  table_.Remove(first);
  Slot* successor = Add(SlotState::kConnecting, true);
  EXPECT_EQ(Dispensable(), 0) << "a successor is coming";
  table_.SetSettled(successor);
  table_.Move(successor, SlotState::kIdle, now_);
  EXPECT_EQ(Dispensable(), 1);
}

TEST_F(PoolSizerTest, AnExpiringLeaseThatComesBackIsKeptUntilItsSuccessorIsThere) {
  table_.SetExpiring(Add(SlotState::kLeased), true);
  EXPECT_TRUE(sizer().NeedsExpiring(pool_, now_));
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(sizer().NeedsExpiring(pool_, now_));
    Add(SlotState::kIdle);
  }
  EXPECT_FALSE(sizer().NeedsExpiring(pool_, now_));
}

TEST_F(PoolSizerTest, AfterAnEvictionMinimaAreNotRefilledForAWhile) {
  sizer().BlockRefill(&node_, now_);
  EXPECT_EQ(Missing(), 0);
  now_ += seconds(60);
  EXPECT_EQ(Missing(), 3);
  settings_.pool_conn_keepalive = kOff;
  sizer().BlockRefill(&node_, now_);
  EXPECT_TRUE(PoolSizer::IsRefillBlocked(node_, now_ + seconds(59)));
  EXPECT_FALSE(PoolSizer::IsRefillBlocked(node_, now_ + seconds(60)));
}

TEST_F(PoolSizerTest, WhatIsUnusedForKeepaliveIsTooMuchAboveTheMinima) {
  for (int i = 0; i < 8; ++i) {
    Add(SlotState::kIdle);
  }
  now_ += seconds(59);
  EXPECT_EQ(sizer().CountUnused(pool_, now_), 0);
  now_ += seconds(1);
  EXPECT_EQ(sizer().CountUnused(pool_, now_), 5);
  Use();
  EXPECT_EQ(sizer().CountUnused(pool_, now_), 5);
  node_.limits.min_free = 6;
  EXPECT_EQ(sizer().CountUnused(pool_, now_), 2);
  settings_.pool_conn_keepalive = kOff;
  EXPECT_EQ(sizer().CountUnused(pool_, now_), 0);
}

TEST_F(PoolSizerTest, WarmupsWaitForConnectsAndForEachOther) {
  settings_.warmup_query = "SELECT 1";
  EXPECT_TRUE(sizer().WarmsUp(pool_, now_));
  EXPECT_TRUE(PoolSizer::MayWarmNow(pool_));
  Slot* slot = Add(SlotState::kConnecting, true);
  EXPECT_FALSE(PoolSizer::MayWarmNow(pool_));
  table_.Move(slot, SlotState::kWarming, now_);
  EXPECT_TRUE(PoolSizer::MayWarmNow(pool_));
  Add(SlotState::kWarming, true);
  EXPECT_FALSE(PoolSizer::MayWarmNow(pool_));
  PoolSizer::BlockWarmup(&pool_, now_);
  EXPECT_FALSE(sizer().WarmsUp(pool_, now_ + seconds(59)));
  EXPECT_TRUE(sizer().WarmsUp(pool_, now_ + seconds(60)));
}

}  // namespace
}  // namespace polarx
