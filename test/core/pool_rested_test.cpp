// Leases that are parked behind a reset which their session has sent: who reads the answer, and
// when they are as good as idle.
#include "pool_cells_fixture.h"

namespace polarx {
namespace {

using parking::Parked;
using parking::Retaken;
using parking::State;
using protocol::ReleaseKind;
using std::chrono::milliseconds;
using std::chrono::seconds;

class PoolRestedTest : public PoolCellsTest {
 protected:
  // Each session has one parked behind its reset.
  void RestFor(SessionId sessions) { ParkFor(sessions, kRole, State::kResetSent); }
  int Idle() { return PoolOf(kNode, kRole)->count(SlotState::kIdle); }
};

TEST_F(PoolRestedTest, WhoTakesItKnowsThatTheAnswerIsUnread) {
  Open();
  RestFor(2);
  AskWithCells(3);
  EXPECT_EQ(last_reset_, ReleaseKind::kResetSent);
  FinishResets();
  EXPECT_EQ(held_[3].size(), 1u);
  GiveBack(3);
  EXPECT_EQ(last_reset_, ReleaseKind::kClean) << "that was another lease";
}

TEST_F(PoolRestedTest, SoDoesWhoGetsItByAMessage) {
  Open();
  HoldToPark(1);
  GiveBack(1, ReleaseKind::kResetSent);
  EXPECT_EQ(last_reset_, ReleaseKind::kResetSent);
}

TEST_F(PoolRestedTest, SoDoesWhoGetsItBecauseTheSessionEnds) {
  Open();
  RestFor(1);
  book_->Abandon(1, Lease(1), now_);
  EXPECT_EQ(resetting_.size(), 1u);
  EXPECT_EQ(last_reset_, ReleaseKind::kResetSent);
  EXPECT_EQ(closes_, 0);
}

TEST_F(PoolRestedTest, TheMemoryCheckReadsItFirst) {
  settings_.pool_session_context_check_gap = seconds(10);
  Open();
  RestFor(1);
  Pass(seconds(10));
  EndTurn();
  EXPECT_EQ(measuring_.size(), 1u);
  EXPECT_EQ(last_reset_, ReleaseKind::kResetSent);
}

TEST_F(PoolRestedTest, ARequestTakesWhatHasRestedBeforeAnotherIsOpened) {
  settings_.max_pool_size = 8;
  Open();
  RestFor(2);
  const int before = connects_;
  AskWithCells(3);
  EXPECT_EQ(connects_, before + 1) << "these may be wanted again at once";
  ConnectAll();
  Pass(milliseconds(5));
  AskWithCells(4);
  EXPECT_EQ(connects_, before + 1);
  EXPECT_EQ(taken_, std::vector<LeaseId>{Lease(1)});
  FinishResets();
  EXPECT_EQ(held_[4].size(), 1u);
}

TEST_F(PoolRestedTest, WhatWasTakenAgainHasNotRested) {
  settings_.max_pool_size = 8;
  Open();
  RestFor(1);
  const int before = connects_;
  Pass(milliseconds(5));
  ASSERT_EQ(Retake(1), Retaken::kYes);
  ASSERT_EQ(Park(1, State::kResetSent), Parked::kYes);
  AskWithCells(2);
  EXPECT_EQ(connects_, before + 1);
  EXPECT_TRUE(taken_.empty());
}

TEST_F(PoolRestedTest, WhatIsParkedAsItIsDoesNotRest) {
  settings_.max_pool_size = 8;
  Open();
  HoldToPark(1);
  ASSERT_EQ(Park(1, State::kParked), Parked::kYes);
  const int before = connects_;
  Pass(seconds(1));
  AskWithCells(2);
  EXPECT_EQ(connects_, before + 1);
  EXPECT_TRUE(taken_.empty());
}

TEST_F(PoolRestedTest, TheReserveComesFromWhatHasRested) {
  settings_.max_pool_size = 8;
  settings_.min_free_size = 1;
  Open();
  RestFor(2);
  ConnectAll();
  ASSERT_EQ(Idle(), 1);
  const int before = connects_;
  Pass(milliseconds(5));
  AskWithCells(3);
  EXPECT_EQ(taken_.size(), 1u);
  EXPECT_EQ(connects_, before);
  FinishResets();
  EXPECT_EQ(Idle(), 1);
}

TEST_F(PoolRestedTest, MaintenanceGivesBackWhatIsNotUsed) {
  Open();
  RestFor(2);
  MaintainAfter(seconds(1));
  EXPECT_TRUE(taken_.empty());
  ASSERT_EQ(Retake(2), Retaken::kYes);
  ASSERT_EQ(Park(2, State::kResetSent), Parked::kYes);
  const LeaseId unused = Lease(1);
  MaintainAfter(seconds(1));
  EXPECT_EQ(taken_, std::vector<LeaseId>{unused});
}

TEST_F(PoolRestedTest, TheTimeThatItIsParkedCountsForNoHold) {
  Open();
  for (const bool taken : {true, false}) {
    HoldToPark(1);
    SlotOf(1)->parking.cell->held_us.store(1000);
    ASSERT_EQ(Park(1, State::kResetSent), Parked::kYes);
    Pass(seconds(5));
    if (taken) {
      book_->Pause(kNode, true, now_);
      book_->Pause(kNode, false, now_);
    } else {
      ASSERT_TRUE(parking::Unpark(SlotOf(1)->parking.cell, Lease(1)));
      GiveBack(1, ReleaseKind::kResetSent);
    }
    held_.clear();
    FinishResets();
  }
  EXPECT_LT(PoolOf(kNode, kRole)->hold_time.Percentile(1), 2000);
}

// --- who waits for what is coming anyway --------------------------------------------------------

TEST_F(PoolRestedTest, SessionsGoOnWhileARequestWaitsForAReset) {
  Open();
  HoldToPark(1);
  HoldToPark(2);
  GiveBack(1);
  AskWithCells(3);  // gets that one
  EXPECT_TRUE(held_[3].empty());
  EXPECT_EQ(CellOfNode().waiting.load(), 0u);
  EXPECT_EQ(Park(2, State::kResetSent), Parked::kYes);
  EXPECT_EQ(Retake(2), Retaken::kYes);
  FinishResets();
  EXPECT_EQ(held_[3].size(), 1u);
  EXPECT_TRUE(taken_.empty());
}

TEST_F(PoolRestedTest, WhereTheResetTakesTooLongTheyAreTold) {
  Open();
  HoldToPark(1);
  HoldToPark(2);
  GiveBack(1);
  AskWithCells(3);
  Pass(seconds(1));
  EndTurn();
  EXPECT_EQ(CellOfNode().waiting.load(), 1u);
  EXPECT_EQ(Park(2, State::kResetSent), Parked::kNo);
}

TEST_F(PoolRestedTest, SessionsSeeWhetherAnyIsIdle) {
  settings_.max_pool_size = 8;
  settings_.min_pool_size = 1;
  Open();
  EXPECT_EQ(CellOfNode().idle.load(), 0u);
  ConnectAll();
  EXPECT_NE(CellOfNode().idle.load(), 0u) << "in both pools";
  AskWithCells(1);
  EXPECT_NE(CellOfNode().idle.load(), 0u);
  EXPECT_GT(book_->Clean(kNode, "bob", now_), 0);
  EXPECT_EQ(CellOfNode().idle.load(), 0u);
}

// A ticket is not tied to the connect that it caused.
TEST_F(PoolRestedTest, SoTheyAreWhereAConnectTakesTooLong) {
  Open();
  HoldToPark(1);
  AskWithCells(2);
  ASSERT_EQ(connecting_.size(), 1u);
  EXPECT_EQ(CellOfNode().waiting.load(), 0u);
  ASSERT_EQ(Park(1, State::kParked), Parked::kYes);
  Pass(seconds(1));
  EndTurn();
  EXPECT_EQ(taken_.size(), 1u);
  FinishResets();
  EXPECT_EQ(held_[2].size(), 1u);
  EXPECT_EQ(connects_, 2);
}

TEST_F(PoolRestedTest, AConnectThatTakesTooLongIsNotMadeTwice) {
  settings_.max_pool_size = 8;
  Open();
  HoldToPark(1);
  AskWithCells(2);
  const int connects = connects_;
  Pass(seconds(1));
  EndTurn();
  EXPECT_EQ(CellOfNode().waiting.load(), 1u);
  EXPECT_EQ(connects_, connects);
  ConnectAll();
  EXPECT_EQ(CellOfNode().waiting.load(), 0u);
  EXPECT_EQ(held_[2].size(), 1u);
}

TEST_F(PoolRestedTest, WhereTheResetFailsTheyAreTold) {
  Open();
  HoldToPark(1);
  HoldToPark(2);
  GiveBack(1);
  AskWithCells(3);
  ASSERT_EQ(Park(2, State::kResetSent), Parked::kYes);
  Slot* failed = resetting_.front();
  resetting_.clear();
  book_->OnBroken(failed, "no answer", now_);
  EndTurn();
  EXPECT_EQ(taken_, std::vector<LeaseId>{Lease(2)});
  FinishResets();
  EXPECT_EQ(held_[3].size(), 1u);
}

}  // namespace
}  // namespace polarx
