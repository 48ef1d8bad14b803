// When a slot's life nears its end, its memory is to be measured, or its lease is told to be long.
#include "core/slot_upkeep.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

#include "core/slot_table.h"

namespace polarx {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Due = SlotUpkeep::Due;

class SlotUpkeepTest : public ::testing::Test {
 protected:
  SlotUpkeepTest() {
    settings_.pool_session_max_lifetime = seconds(100);
    settings_.pool_session_context_check_gap = seconds(1000);
    node_.limits.max_size = 100;
    MakeUpkeep();
  }
  void MakeUpkeep() { upkeep_ = std::make_unique<SlotUpkeep>(settings_, 1); }
  Slot* OpenIdle() {
    Slot* slot = table_.Add(&pool_, now_);
    upkeep_->Begin(slot, now_);
    Move(slot, SlotState::kIdle);
    return slot;
  }
  Slot* OpenLeased() {
    Slot* slot = OpenIdle();
    slot->lease.held_since = now_;
    Move(slot, SlotState::kLeased);
    return slot;
  }
  void Move(Slot* slot, SlotState state) {
    table_.Move(slot, state, now_);
    upkeep_->Arm(*slot);
  }
  // To the slot's next timer, which is the only one.
  Due DueNext(const Slot& slot) {
    EXPECT_NE(upkeep_->NextDeadline(), kNever);
    now_ = std::max(now_, upkeep_->NextDeadline());
    EXPECT_EQ(upkeep_->TakeDue(now_), slot.id);
    EXPECT_EQ(upkeep_->NextDeadline(), kNever);
    return upkeep_->WhatIsDue(slot, now_);
  }

  Settings settings_;
  const TimePoint begin_{seconds(100000)};
  TimePoint now_ = begin_;
  Node node_;
  Pool pool_{1, &node_, MappingDefinition{}};
  SlotTable table_;
  std::unique_ptr<SlotUpkeep> upkeep_;
};

TEST_F(SlotUpkeepTest, AnIdleSlotExpiresBeforeItEnds) {
  Slot* slot = OpenIdle();
  EXPECT_EQ(DueNext(*slot), Due::kExpiry);
  EXPECT_GE(now_ - begin_, seconds(90));
  EXPECT_LE(now_ - begin_, seconds(98));
  table_.SetExpiring(slot, true);
  upkeep_->Arm(*slot);
  EXPECT_EQ(DueNext(*slot), Due::kEnd);
  EXPECT_EQ(now_, upkeep_->EndOf(*slot));
  EXPECT_EQ(now_ - begin_, seconds(100));
}

TEST_F(SlotUpkeepTest, ALeasedSlotExpiresAndIsRecalledOnce) {
  Slot* slot = OpenLeased();
  EXPECT_EQ(DueNext(*slot), Due::kExpiry);
  table_.SetExpiring(slot, true);
  slot->lease.recalled = true;
  upkeep_->Arm(*slot);
  EXPECT_EQ(upkeep_->NextDeadline(), kNever) << "it closes when it comes back";
  slot->lease.recalled = false;
  Move(slot, SlotState::kIdle);
  Move(slot, SlotState::kLeased);
  EXPECT_EQ(DueNext(*slot), Due::kExpiry) << "lent once more, it is to be recalled once more";
}

TEST_F(SlotUpkeepTest, WhatIsDoomedDoesNotExpire) {
  Slot* slot = OpenLeased();
  slot->doomed = CloseReason::kCleaned;
  EXPECT_EQ(DueNext(*slot), Due::kNothing);
  upkeep_->Arm(*slot);
  EXPECT_EQ(upkeep_->NextDeadline(), kNever);
}

TEST_F(SlotUpkeepTest, ATimerOfAnotherStateMeansNothing) {
  Slot* slot = OpenIdle();
  Move(slot, SlotState::kResetting);
  EXPECT_EQ(DueNext(*slot), Due::kNothing);
  Move(slot, SlotState::kIdle);
  EXPECT_EQ(DueNext(*slot), Due::kExpiry) << "it is due at once";
}

TEST_F(SlotUpkeepTest, OneThatIsForgottenHasNoTimer) {
  Slot* slot = OpenIdle();
  upkeep_->Forget(*slot);
  EXPECT_EQ(upkeep_->NextDeadline(), kNever);
}

TEST_F(SlotUpkeepTest, SlotsOpenedTogetherExpireApart) {
  std::set<TimePoint> times;
  for (int i = 0; i < 40; ++i) {
    times.insert(OpenIdle()->age.expires_at);
  }
  EXPECT_GE(times.size(), 30u);
  EXPECT_GT(*times.rbegin() - *times.begin(), seconds(5));
}

TEST_F(SlotUpkeepTest, ASlotIsMeasuredWithinTheGap) {
  settings_.pool_session_max_lifetime = seconds(1000000);
  settings_.pool_session_context_check_gap = seconds(60);
  settings_.pool_session_memory_limit_mb = 10;
  MakeUpkeep();
  Slot* slot = OpenIdle();
  struct Case {
    std::optional<std::int64_t> bytes;
    bool too_much;
  };
  for (const Case& c : {Case{10 << 20, false}, Case{(10 << 20) + 1, true}, Case{{}, false}}) {
    const TimePoint before = now_;
    EXPECT_EQ(DueNext(*slot), Due::kCheck);
    EXPECT_GE(now_ - before, seconds(45));
    EXPECT_LE(now_ - before, seconds(60));
    EXPECT_EQ(upkeep_->NoteMemory(slot, c.bytes, now_), c.too_much);
    EXPECT_EQ(slot->age.memory_bytes, c.bytes);
    EXPECT_EQ(slot->age.checked_at, now_);
    upkeep_->Arm(*slot);
  }
}

TEST_F(SlotUpkeepTest, ALeasedSlotIsOnlyCalledToItsCheckIfItMayBeParked) {
  settings_.pool_session_max_lifetime = seconds(1000000);
  settings_.pool_session_context_check_gap = seconds(60);
  MakeUpkeep();
  LeaseCell cell;
  Slot* slot = OpenIdle();
  slot->parking.cell = &cell;
  Move(slot, SlotState::kLeased);
  EXPECT_EQ(DueNext(*slot), Due::kCheck);
  slot->parking.barred = true;
  upkeep_->Arm(*slot);
  EXPECT_GT(upkeep_->NextDeadline(), now_ + seconds(1000)) << "it is measured when it comes back";
}

TEST_F(SlotUpkeepTest, ChecksThatWaitForAnotherComeOneAfterTheOther) {
  settings_.pool_session_max_lifetime = seconds(1000000);
  settings_.pool_session_context_check_gap = seconds(20);
  MakeUpkeep();
  for (int i = 0; i < 50; ++i) {
    OpenIdle();
  }
  now_ += seconds(20);
  while (const auto id = upkeep_->TakeDue(now_)) {
    Slot* slot = table_.Find(*id);
    ASSERT_EQ(upkeep_->WhatIsDue(*slot, now_), Due::kCheck);
    upkeep_->PostponeCheck(slot, now_);
    upkeep_->Arm(*slot);
  }
  std::vector<TimePoint> times;
  while (const auto id = upkeep_->TakeDue(now_ + seconds(10))) {
    times.push_back(table_.Find(*id)->age.check_at);
  }
  ASSERT_EQ(times.size(), 50u);
  for (std::size_t i = 0; i < times.size(); ++i) {
    EXPECT_EQ(times[i], now_ + milliseconds(20) * static_cast<int>(i + 1));
  }
}

TEST_F(SlotUpkeepTest, ALongLeaseIsToldUntilItWasTold) {
  settings_.lease_warn_after = seconds(10);
  EXPECT_FALSE(upkeep_->Apply(settings_)) << "no slot needs new times";
  Slot* slot = OpenLeased();
  EXPECT_EQ(DueNext(*slot), Due::kWarning);
  EXPECT_EQ(now_ - begin_, seconds(10));
  slot->lease.held_since = now_;  // it was taken again
  upkeep_->Arm(*slot);
  EXPECT_EQ(DueNext(*slot), Due::kWarning);
  EXPECT_EQ(now_ - begin_, seconds(20));
  slot->lease.warned = true;
  upkeep_->Arm(*slot);
  EXPECT_EQ(DueNext(*slot), Due::kExpiry);
}

TEST_F(SlotUpkeepTest, ANewLifetimeHoldsForWhatIsOpen) {
  Slot* slot = OpenIdle();
  settings_.pool_session_max_lifetime = seconds(10);
  EXPECT_TRUE(upkeep_->Apply(settings_));
  now_ += seconds(50);
  upkeep_->SetTimes(slot);
  upkeep_->Arm(*slot);
  EXPECT_EQ(DueNext(*slot), Due::kEnd);
}

}  // namespace
}  // namespace polarx
