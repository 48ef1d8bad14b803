// Replacement ahead of the end, the memory check, recalls and the warning of long leases, each on a
// clock that the test moves.
#include "pool_book_fixture.h"

namespace polarx {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class PoolTimersTest : public PoolBookTest {
 protected:
  Pool* pool() { return PoolOf(kNode, kRole); }
  int idle() { return pool()->count(SlotState::kIdle); }
  // The one lease of a pool that keeps one open has expired; its replacement is being opened.
  void HoldUntilExpired() {
    settings_.min_pool_size = 1;
    settings_.max_pool_size = 8;
    OpenOne();
    Hold(1);
    while (recalled_.empty()) {
      PassUntilDue();
    }
    ASSERT_EQ(connecting_.size(), 1u);
  }
  std::uint64_t expired() { return pool()->counters.closed_lifetime; }
};

TEST_F(PoolTimersTest, AnIdleSlotIsReplacedBeforeItCloses) {
  settings_.min_pool_size = 1;
  settings_.max_pool_size = 8;
  OpenOne();
  PassUntilDue();
  ASSERT_FALSE(connecting_.empty());
  EXPECT_EQ(idle(), 1) << "the old one stays meanwhile";
  EXPECT_EQ(closes_, 0);
  ConnectAll();
  EXPECT_EQ(idle(), 1);
  EXPECT_EQ(expired(), 1u);
  EXPECT_LT(now_ - TimePoint(seconds(100000)), settings_.pool_session_max_lifetime);
}

TEST_F(PoolTimersTest, AnExpiredSlotServesUntilItsReplacementIsThere) {
  settings_.min_pool_size = 1;
  settings_.max_pool_size = 8;
  OpenOne();
  PassUntilDue();
  Ask(1);
  EndTurn();
  EXPECT_EQ(held_[1].size(), 1u) << "nobody waits for a replacement";
  ConnectAll();
  GiveBack(1);
  EXPECT_EQ(expired(), 1u);
  EXPECT_EQ(idle(), 1);
}

TEST_F(PoolTimersTest, NoSlotIsLentOrIdleBeyondItsLifetime) {
  settings_.min_pool_size = 1;
  settings_.max_pool_size = 8;
  OpenOne();
  PassUntilDue();  // the replacement's connect hangs
  Pass(settings_.pool_session_max_lifetime / 10);
  EndTurn();
  EXPECT_EQ(idle(), 0);
  EXPECT_EQ(expired(), 1u);
}

TEST_F(PoolTimersTest, AtTheMaximumTheOldOneClosesFirst) {
  settings_.min_free_size = 2;
  settings_.max_pool_size = 2;
  settings_.pool_conn_keepalive = seconds(1000000);
  OpenOne();
  UseTogether(2);
  const int before = connects_;
  PassUntilDue();
  EXPECT_EQ(connects_, before);
  EXPECT_EQ(closes_, 1);
  FinishCloses();
  EXPECT_EQ(connects_, before + 1);
}

TEST_F(PoolTimersTest, WhatNobodyNeedsIsNotReplaced) {
  settings_.max_pool_size = 8;
  settings_.pool_conn_keepalive = seconds(1000000);
  OpenOne();
  UseTogether(3);
  const int before = connects_;
  for (int i = 0; i < 3; ++i) {
    PassUntilDue();
  }
  EXPECT_EQ(expired(), 3u);
  EXPECT_EQ(connects_, before);
}

TEST_F(PoolTimersTest, AnExpiredLeaseIsRecalledAndReplacedBeforeItIsGivenBack) {
  HoldUntilExpired();
  EXPECT_EQ(recalled_, std::vector<LeaseId>{held_[1].front()});
  ConnectAll();
  EXPECT_EQ(idle(), 1);
  GiveBack(1);
  FinishCloses();
  EXPECT_EQ(expired(), 1u);
  EXPECT_TRUE(connecting_.empty());
  EXPECT_EQ(pool()->total(), 1);
}

TEST_F(PoolTimersTest, AnExpiredLeaseThatIsGivenBackServesUntilItsReplacementIsReady) {
  HoldUntilExpired();
  GiveBack(1);
  FinishResets();
  EXPECT_EQ(expired(), 0u) << "nothing else is open";
  EXPECT_EQ(idle(), 1);
  Ask(1);
  EndTurn();
  EXPECT_EQ(held_[1].size(), 1u);
  ConnectAll();
  GiveBack(1);
  FinishCloses();
  EXPECT_EQ(expired(), 1u);
  EXPECT_EQ(idle(), 1);
  EXPECT_EQ(pool()->total(), 1);
}

TEST_F(PoolTimersTest, AnExpiredLeaseClosesAtItsEndThoughItsReplacementHangs) {
  HoldUntilExpired();
  GiveBack(1);
  FinishResets();
  ASSERT_EQ(idle(), 1);
  Pass(settings_.pool_session_max_lifetime / 10);
  EndTurn();
  FinishCloses();
  EXPECT_EQ(expired(), 1u);
  EXPECT_EQ(idle(), 0);
}

TEST_F(PoolTimersTest, ASlotThatExpiresOnItsWayBackIsReplacedBeforeItCloses) {
  settings_.min_pool_size = 1;
  settings_.max_pool_size = 8;
  OpenOne();
  Hold(1);
  GiveBack(1);
  Pass(settings_.pool_session_max_lifetime * 99 / 100);
  EndTurn();
  FinishResets();
  EXPECT_EQ(idle(), 1);
  EXPECT_EQ(connecting_.size(), 1u);
  ConnectAll();
  EXPECT_EQ(idle(), 1);
  EXPECT_EQ(expired(), 1u);
}

TEST_F(PoolTimersTest, ALeaseThatWasReplacedDoesNotCountForTheMinimum) {
  settings_.min_pool_size = 3;
  settings_.max_pool_size = 20;
  OpenOne();
  Hold(1);
  for (int i = 0; i < 12; ++i) {
    PassUntilDue();
    ConnectAll();
    FinishCloses();
  }
  EXPECT_EQ(recalled_.size(), 1u);
  EXPECT_GE(expired(), 3u);
  EXPECT_EQ(idle(), 3) << "beside the lease";
}

TEST_F(PoolTimersTest, SlotsOpenedTogetherDoNotExpireTogether) {
  settings_.min_pool_size = 40;
  settings_.max_pool_size = 300;
  Open();
  ConnectAll();
  std::set<TimePoint> ends;
  for (const Slot& slot : pool()->list(SlotState::kIdle)) {
    ends.insert(slot.age.expires_at);
  }
  ASSERT_GE(ends.size(), 30u);
  EXPECT_GT(*ends.rbegin() - *ends.begin(), settings_.pool_session_max_lifetime / 20);
}

TEST_F(PoolTimersTest, AShorterLifetimeHoldsForWhatIsOpen) {
  settings_.min_pool_size = 1;
  settings_.max_pool_size = 8;
  Open();
  ConnectAll();
  Pass(seconds(100));
  settings_.pool_session_max_lifetime = seconds(50);
  book_->Apply(settings_, now_);
  EndTurn();
  EXPECT_EQ(expired(), 1u);
}

// --- memory -------------------------------------------------------------------------------------

class MemoryTest : public PoolTimersTest {
 protected:
  MemoryTest() {
    settings_.max_pool_size = 8;
    settings_.pool_session_max_lifetime = seconds(1000000);
    settings_.pool_session_context_check_gap = seconds(60);
    settings_.pool_conn_keepalive = seconds(1000000);
  }
};

TEST_F(MemoryTest, AnIdleSlotIsMeasuredWithinTheGapAndGoesOn) {
  Open();
  UseTogether(1);
  PassUntilDue();
  ASSERT_EQ(measuring_.size(), 1u);
  EXPECT_LE(now_ - TimePoint(seconds(100000)), seconds(60));
  FinishMeasures(std::int64_t{5} << 20);
  EXPECT_EQ(idle(), 1);
  EXPECT_EQ(pool()->list(SlotState::kIdle).front().age.memory_bytes, std::int64_t{5} << 20);
  const TimePoint first = now_;
  PassUntilDue();
  EXPECT_EQ(measuring_.size(), 1u) << "and again";
  EXPECT_LE(now_ - first, seconds(60));
}

TEST_F(MemoryTest, ASlotAboveTheLimitIsClosedAndSaysWhy) {
  Open();
  UseTogether(1);
  PassUntilDue();
  FinishMeasures((std::int64_t{10} << 20) + 1);
  EXPECT_EQ(idle(), 0);
  EXPECT_EQ(pool()->counters.closed_memory, 1u);
  ASSERT_FALSE(logs_.empty());
  EXPECT_NE(logs_.back().find("uses 10 MB"), std::string::npos) << logs_.back();
}

TEST_F(MemoryTest, ALeasedSlotIsMeasuredAtItsReset) {
  Open();
  Hold(1);
  Pass(seconds(61));
  EndTurn();
  EXPECT_TRUE(measuring_.empty());
  GiveBack(1);
  ASSERT_EQ(measuring_.size(), 1u);
  FinishMeasures(std::int64_t{11} << 20);
  EXPECT_EQ(pool()->counters.closed_memory, 1u);
}

TEST_F(MemoryTest, OneSlotOfAPoolIsMeasuredAtATime) {
  Open();
  UseTogether(4);
  Pass(seconds(60));
  EndTurn();
  EXPECT_EQ(measuring_.size(), 1u);
  EXPECT_EQ(idle(), 3);
  int measured = 0;
  for (int i = 0; i < 20 && measured < 4; ++i) {
    measured += static_cast<int>(measuring_.size());
    FinishMeasures(1);
    Pass(milliseconds(20));
    EndTurn();
  }
  EXPECT_EQ(measured, 4);
}

TEST_F(MemoryTest, WhatCannotBeMeasuredIsSaidOnceANode) {
  Open();
  UseTogether(2);
  for (int i = 0; i < 6; ++i) {
    PassUntilDue();
    FinishMeasures(std::nullopt);
  }
  EXPECT_EQ(std::count_if(logs_.begin(), logs_.end(),
                          [](const std::string& line) {
                            return line.find("cannot be measured") != std::string::npos;
                          }),
            1);
  EXPECT_EQ(idle(), 2);
  EXPECT_FALSE(pool()->list(SlotState::kIdle).front().age.memory_bytes.has_value());
}

TEST_F(MemoryTest, AMeasuredSlotKeepsItsPlaceAmongTheIdle) {
  Open();
  UseTogether(2);
  Hold(1);
  Pass(seconds(1));
  GiveBack(1);
  FinishResets();
  const SlotId last_used = pool()->list(SlotState::kIdle).front().id;
  const SlotId other = pool()->list(SlotState::kIdle).back().id;
  ASSERT_NE(last_used, other);
  for (int i = 0; i < 6; ++i) {
    PassUntilDue();
    FinishMeasures(1);
    EXPECT_EQ(pool()->list(SlotState::kIdle).front().id, last_used);
  }
}

TEST_F(MemoryTest, ARequestWaitsForTheCheckRatherThanForAConnect) {
  Open();
  UseTogether(1);
  PassUntilDue();
  const int before = connects_;
  Ask(1);
  EndTurn();
  EXPECT_EQ(connects_, before);
  FinishMeasures(1);
  EXPECT_EQ(held_[1].size(), 1u);
}

// --- leases that are to be given back -----------------------------------------------------------

TEST_F(PoolTimersTest, WhatARoleMayNoLongerHoldIsRecalled) {
  Open();
  Hold(1);
  Ask(2, {{kNode, kOtherRole}});
  EndTurn();
  ConnectAll();
  const LeaseId lease = held_[1].front();
  mappings_[0].options = {{"password", "new"}, {"user", "alice"}};  // of kRole on kNode
  book_->SetCatalog(nodes_, mappings_, now_);
  EXPECT_EQ(recalled_, std::vector<LeaseId>{lease});
  book_->SetCatalog(nodes_, mappings_, now_);
  EXPECT_EQ(recalled_.size(), 1u) << "told once";
}

TEST_F(PoolTimersTest, TheStricterPasswordRuleRecallsALease) {
  password_used_ = false;
  Open();
  Hold(1);
  mappings_[0].restricted = true;
  book_->SetCatalog(nodes_, mappings_, now_);
  EXPECT_EQ(recalled_, held_[1]);
}

TEST_F(PoolTimersTest, CleanRecallsALease) {
  Open();
  Hold(1);
  EXPECT_EQ(book_->Clean(kNode, "", now_), 1);
  EXPECT_EQ(recalled_, held_[1]);
  GiveBack(1);
  EXPECT_EQ(closing_.size(), 1u);
}

TEST_F(PoolTimersTest, ALongLeaseIsToldOnce) {
  settings_.lease_warn_after = seconds(10);
  Open();
  Hold(1);
  Pass(seconds(9));
  EndTurn();
  EXPECT_TRUE(long_leases_.empty());
  PassUntilDue();
  ASSERT_EQ(long_leases_.size(), 1u);
  EXPECT_EQ(long_leases_.front().first, 1u);
  EXPECT_GE(long_leases_.front().second, seconds(10));
  Pass(seconds(30));
  EndTurn();
  EXPECT_EQ(long_leases_.size(), 1u);
  GiveBack(1);
  FinishResets();
  Hold(1);
  Pass(seconds(10));
  EndTurn();
  EXPECT_EQ(long_leases_.size(), 2u) << "the next lease of the slot";
}

TEST_F(PoolTimersTest, TheWarningStartsWithAReload) {
  Open();
  Hold(1);
  Pass(seconds(20));
  settings_.lease_warn_after = seconds(10);
  book_->Apply(settings_, now_);
  EndTurn();
  EXPECT_EQ(long_leases_.size(), 1u);
}

}  // namespace
}  // namespace polarx
