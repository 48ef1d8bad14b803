// Leases that are given back through their cells, without a message: when they are found, and that
// nobody misses them; and when resets may wait to be done together.
#include "pool_cells_fixture.h"

namespace polarx {
namespace {

using parking::Parked;
using parking::State;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

class PoolReturnedTest : public PoolCellsTest {
 protected:
  void Hold(SessionId session, RoleId role = kRole) {
    held_[session].clear();
    AskWithCells(session, role);
    ConnectAll();
  }
  Parked GiveBackQuietly(SessionId session, Duration held = microseconds(80)) {
    LeaseCell* cell = SlotOf(session)->parking.cell;
    cell->held_us.store(static_cast<std::uint32_t>(held.count()));
    return parking::GiveBack(cell, CellOfNode(), Lease(session));
  }
  int Idle() { return PoolOf(kNode, kRole)->count(SlotState::kIdle); }
  State StateOf(SessionId session) {
    return parking::StateOf(*SlotOf(session)->parking.cell, Lease(session));
  }
  void HoldAndGiveBack(SessionId session, RoleId role = kRole) {
    Hold(session, role);
    ASSERT_EQ(held_[session].size(), 1u);
    ASSERT_EQ(GiveBackQuietly(session), Parked::kYes);
  }
};

TEST_F(PoolReturnedTest, TheNextDeadlineIsWhenItIsLookedFor) {
  Open();
  HoldAndGiveBack(1);
  EXPECT_EQ(book_->NextDeadline(), now_ + parking::kFreshTime);
  Pass(parking::kFreshTime - microseconds(1));
  EndTurn();
  EXPECT_TRUE(resetting_.empty());
  Pass(microseconds(1));
  EndTurn();
  EXPECT_EQ(resetting_.size(), 1u);
  EXPECT_EQ(last_reset_, protocol::ReleaseKind::kClean);
  EXPECT_EQ(taken_.size(), 1u);
  FinishResets();
  EXPECT_EQ(Idle(), 1);
}

TEST_F(PoolReturnedTest, AfterThatALeaseIsReleasedByAMessage) {
  Open();
  Hold(1);
  EXPECT_EQ(StateOf(1), State::kFresh);
  Pass(parking::kFreshTime);
  EndTurn();
  EXPECT_EQ(StateOf(1), State::kLeased);
  EXPECT_EQ(GiveBackQuietly(1), Parked::kNo);
  EXPECT_TRUE(book_->Release(1, Lease(1), protocol::ReleaseKind::kClean, now_));
  EXPECT_EQ(resetting_.size(), 1u);
}

TEST_F(PoolReturnedTest, OneThatWasReleasedByAMessageWakesNobody) {
  Open();
  Hold(1);
  GiveBack(1);
  EndTurn();
  EXPECT_NE(book_->NextDeadline(), now_ + parking::kFreshTime);
}

TEST_F(PoolReturnedTest, WhoWaitsGetsItAndNoConnectionIsOpened) {
  Open();
  HoldAndGiveBack(1);
  Hold(2);
  EXPECT_EQ(resetting_.size(), 1u);  // not lent before
  EXPECT_TRUE(held_[2].empty());
  FinishResets();
  EXPECT_EQ(held_[2].size(), 1u);
  EXPECT_EQ(connects_, 1);
}

TEST_F(PoolReturnedTest, AnotherPoolOfAFullNodeGetsItsRoom) {
  settings_.max_pool_size = 1;
  Open();
  HoldAndGiveBack(1);
  Hold(2, kOtherRole);
  EXPECT_EQ(taken_.size(), 1u);
  FinishResets();
  FinishCloses();
  ConnectAll();
  EXPECT_EQ(held_[2].size(), 1u);
}

TEST_F(PoolReturnedTest, NoneIsOpenedForTheMinimumInItsPlace) {
  settings_.max_pool_size = 8;
  settings_.min_free_size = 1;
  Open();
  Hold(1);
  ConnectAll();
  const int connects = connects_;
  ASSERT_EQ(GiveBackQuietly(1), Parked::kYes);
  Hold(2);  // takes the idle one
  EXPECT_EQ(connects_, connects);
  EXPECT_EQ(resetting_.size(), 1u);
}

TEST_F(PoolReturnedTest, WhileOthersWaitItIsNotTakenThatWay) {
  settings_.max_pool_size = 1;
  Open();
  Hold(1);
  Hold(2);
  EXPECT_EQ(GiveBackQuietly(1), Parked::kNo);
  GiveBack(1);
  FinishResets();
  ASSERT_EQ(held_[2].size(), 1u);
  EXPECT_EQ(StateOf(2), State::kFresh);
  Hold(3);
  Hold(4);
  GiveBack(2);
  FinishResets();
  EXPECT_EQ(StateOf(3), State::kLeased);  // for 4 waits, so that nobody has to look
}

TEST_F(PoolReturnedTest, ItIsCollectedOnRequest) {
  Open();
  HoldAndGiveBack(1);
  const LeaseId lease = Lease(1);
  Hold(2);
  EXPECT_FALSE(book_->CollectReturned(lease + 100, now_));
  FinishResets();
  HoldAndGiveBack(3);
  EXPECT_TRUE(book_->CollectReturned(Lease(3), now_));
  EXPECT_FALSE(book_->CollectReturned(Lease(3), now_));
  EXPECT_EQ(book_->CollectReturned(now_), 0);
}

TEST_F(PoolReturnedTest, HowLongItWasHeldIsWhatTheSessionSays) {
  Open();
  Hold(1);
  ASSERT_EQ(GiveBackQuietly(1, microseconds(80)), Parked::kYes);
  Pass(milliseconds(50));
  EndTurn();
  const Histogram& held = PoolOf(kNode, kRole)->hold_time;
  EXPECT_EQ(held.count(), 1u);
  EXPECT_LT(held.Percentile(0.5), 1000);
}

TEST_F(PoolReturnedTest, WhenItsSessionEndsItIsReset) {
  Open();
  HoldAndGiveBack(1);
  book_->Abandon(1, Lease(1), now_);
  EXPECT_EQ(resetting_.size(), 1u);
  EXPECT_EQ(last_reset_, protocol::ReleaseKind::kClean);
  EndTurn();
  Pass(parking::kFreshTime);
  EndTurn();
  EXPECT_EQ(resetting_.size(), 1u);
}

TEST_F(PoolReturnedTest, ADoomedOneIsClosedNotRecalled) {
  Open();
  HoldAndGiveBack(1);
  EXPECT_EQ(book_->Clean(kNode, "", now_), 1);
  EXPECT_EQ(closing_.size(), 1u);
  EXPECT_TRUE(recalled_.empty());
}

// --- resets that wait ---------------------------------------------------------------------------

TEST_F(PoolReturnedTest, ResetsWaitAsLongAsThereAreAsManyIdleSlots) {
  settings_.max_pool_size = 8;
  Open();
  for (SessionId session = 1; session <= 5; ++session) {
    Hold(session);
  }
  for (SessionId session = 1; session <= 3; ++session) {
    GiveBack(session);
  }
  FinishResets();
  (void)book_->TakeUrgencyOfResets();
  ASSERT_EQ(Idle(), 3);
  GiveBack(4);
  EXPECT_EQ(book_->TakeUrgencyOfResets(), Urgency::kMayWait);  // 1, and 3 idle
  Hold(1);
  EXPECT_EQ(book_->TakeUrgencyOfResets(), Urgency::kMayWait);  // 1, and 2 idle
  GiveBack(5);
  EXPECT_EQ(book_->TakeUrgencyOfResets(), Urgency::kMayWait);  // 2, and 2 idle
  Hold(2);
  EXPECT_EQ(book_->TakeUrgencyOfResets(), Urgency::kAtOnce);   // 2, and 1 idle
  EXPECT_EQ(book_->TakeUrgencyOfResets(), Urgency::kMayWait);  // told once
}

TEST_F(PoolReturnedTest, NoResetWaitsWhileARequestDoes) {
  settings_.max_pool_size = 1;
  Open();
  Hold(1);
  Hold(2);
  EXPECT_EQ(book_->TakeUrgencyOfResets(), Urgency::kAwaited);
  EXPECT_EQ(book_->TakeUrgencyOfResets(), Urgency::kAwaited);
}

}  // namespace
}  // namespace polarx
