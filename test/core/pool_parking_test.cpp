// Parked leases in the book-keeping: who gets them, when they are taken back, how they are counted.
#include "core/pool_views.h"
#include "pool_cells_fixture.h"

namespace polarx {
namespace {

using parking::Parked;
using parking::Retaken;
using parking::State;
using std::chrono::milliseconds;
using std::chrono::seconds;

class PoolParkingTest : public PoolCellsTest {
 protected:
  // Of the row of kRole's pool on kNode: the number in that column.
  int Shown(std::size_t column) {
    book_->CountParked();
    return std::stoi(*PoolRow(*PoolOf(kNode, kRole), {}).at(column));
  }
  int ShownLeased() { return Shown(6); }
  int ShownParked() { return Shown(7); }
};

// --- for who waits ------------------------------------------------------------------------------

TEST_F(PoolParkingTest, ATicketOfAFullNodeTakesAParkedLease) {
  Open();
  ParkFor(2);
  const LeaseId oldest = Lease(1);
  AskWithCells(3);
  EXPECT_EQ(taken_, std::vector<LeaseId>{oldest});
  EXPECT_EQ(resetting_.size(), 1u);  // not lent before
  EXPECT_TRUE(held_[3].empty());
  EXPECT_EQ(last_reset_, protocol::ReleaseKind::kClean);
  FinishResets();
  EXPECT_EQ(held_[3].size(), 1u);
  EXPECT_EQ(connects_, 2);
  EXPECT_FALSE(book_->Release(1, oldest, protocol::ReleaseKind::kClean, now_));
}

TEST_F(PoolParkingTest, UnusedOnesBeforeANewConnectionUsedOnesAfterwards) {
  settings_.max_pool_size = 3;
  Open();
  ParkFor(2);
  Maintain();  // both parked; from now on unused
  ASSERT_EQ(Retake(1), Retaken::kYes);
  ASSERT_EQ(Park(1), Parked::kYes);
  const LeaseId used = Lease(1);
  const LeaseId unused = Lease(2);
  AskWithCells(3);
  EXPECT_EQ(taken_, std::vector<LeaseId>{unused});
  EXPECT_EQ(connects_, 2);
  AskWithCells(4);
  EXPECT_EQ(connects_, 3);
  EXPECT_EQ(taken_.size(), 1u);
  AskWithCells(5);
  EXPECT_EQ(taken_, (std::vector<LeaseId>{unused, used}));
  EXPECT_EQ(connects_, 3);
}

TEST_F(PoolParkingTest, WaitingIsPublishedUntilNobodyWaits) {
  settings_.max_pool_size = 1;
  Open();
  HoldToPark(1);
  EXPECT_EQ(CellOfNode().waiting.load(), 0u);
  AskWithCells(2);
  AskWithCells(3);
  EXPECT_EQ(CellOfNode().waiting.load(), 2u);
  EXPECT_EQ(Park(1), Parked::kNo);
  GiveBack(1);
  FinishResets();
  EXPECT_EQ(held_[2].size(), 1u);
  EXPECT_EQ(CellOfNode().waiting.load(), 1u);
  EXPECT_TRUE(book_->Withdraw(3, 1));
  EndTurn();
  EXPECT_EQ(CellOfNode().waiting.load(), 0u);
  EXPECT_EQ(Park(2), Parked::kYes);
}

TEST_F(PoolParkingTest, AnotherPoolOfAFullNodeGetsRoomFromParkedOnes) {
  settings_.max_pool_size = 1;
  Open();
  ParkFor(1);
  AskWithCells(2, kOtherRole);
  EXPECT_EQ(taken_.size(), 1u);
  ASSERT_EQ(closing_.size(), 1u);
  EXPECT_EQ(PoolOf(kNode, kRole)->counters.closed_idle, 1u);
  FinishCloses();
  ConnectAll();
  EXPECT_EQ(held_[2].size(), 1u);
}

// --- maintenance --------------------------------------------------------------------------------

TEST_F(PoolParkingTest, OnAFullNodeTheReserveComesFromUnusedOnes) {
  settings_.min_free_size = 1;
  Open();
  ParkFor(2);
  Maintain();
  EXPECT_TRUE(taken_.empty());
  ASSERT_EQ(Retake(2), Retaken::kYes);
  ASSERT_EQ(Park(2), Parked::kYes);
  const LeaseId unused = Lease(1);
  MaintainAfter(seconds(1));
  EXPECT_EQ(taken_, std::vector<LeaseId>{unused});
  FinishResets();
  EXPECT_EQ(PoolOf(kNode, kRole)->count(SlotState::kIdle), 1);
  MaintainAfter(seconds(1));
  EXPECT_EQ(taken_.size(), 1u);
}

TEST_F(PoolParkingTest, WhatIsUnusedForKeepaliveIsTakenBack) {
  settings_.pool_conn_keepalive = seconds(10);
  Open();
  ParkFor(2);
  Maintain();
  Pass(seconds(5));
  ASSERT_EQ(Retake(2), Retaken::kYes);
  ASSERT_EQ(Park(2), Parked::kYes);
  Maintain();
  const LeaseId unused = Lease(1);
  MaintainAfter(milliseconds(4999));
  EXPECT_TRUE(taken_.empty());
  MaintainAfter(milliseconds(1));
  EXPECT_EQ(taken_, std::vector<LeaseId>{unused});
  EXPECT_EQ(resetting_.size(), 1u);
}

TEST_F(PoolParkingTest, KeepaliveOffKeepsThem) {
  settings_.pool_conn_keepalive = kOff;
  settings_.pool_session_max_lifetime = std::chrono::hours(2);
  Open();
  ParkFor(1);
  Maintain();
  MaintainAfter(std::chrono::hours(1));
  EXPECT_TRUE(taken_.empty());
}

// --- operation ----------------------------------------------------------------------------------

TEST_F(PoolParkingTest, CleanClosesParkedOnesAndRecallsOthers) {
  Open();
  ParkFor(1);
  HoldToPark(2);
  EXPECT_EQ(book_->Clean(kNode, "alice", now_), 2);
  EXPECT_EQ(taken_, std::vector<LeaseId>{Lease(1)});
  EXPECT_EQ(recalled_, std::vector<LeaseId>{Lease(2)});
  EXPECT_EQ(closing_.size(), 1u);
  EXPECT_EQ(Park(2), Parked::kNo);
  GiveBack(2);
  EXPECT_EQ(closing_.size(), 2u);
}

TEST_F(PoolParkingTest, PauseTakesParkedOnesBack) {
  Open();
  ParkFor(1);
  HoldToPark(2);
  const LeaseId parked = Lease(1);
  book_->Pause(kNode, true, now_);
  EndTurn();
  EXPECT_EQ(taken_, std::vector<LeaseId>{parked});
  EXPECT_EQ(Park(2), Parked::kNo);
  book_->Pause(kNode, false, now_);
  EndTurn();
  EXPECT_EQ(Park(2), Parked::kYes);
}

TEST_F(PoolParkingTest, WhoMayNoLongerHaveItLosesItWhileParked) {
  password_used_ = false;
  Open();
  ParkFor(1);
  HoldToPark(2, kOtherRole);
  mappings_[0].restricted = true;
  SendCatalog();
  EXPECT_EQ(taken_, std::vector<LeaseId>{Lease(1)});
  EXPECT_EQ(closing_.size(), 1u);
  EXPECT_TRUE(recalled_.empty());
}

TEST_F(PoolParkingTest, ALoweredLimitClosesParkedOnes) {
  Open();
  ParkFor(2);
  settings_.max_pool_size = 1;
  book_->Apply(settings_, now_);
  EndTurn();
  EXPECT_EQ(taken_.size(), 1u);
  EXPECT_EQ(closing_.size(), 1u);
  FinishCloses();
  EXPECT_EQ(Total(kNode), 1);
}

// --- timers -------------------------------------------------------------------------------------

TEST_F(PoolParkingTest, TheLifetimeEndsParkedOnes) {
  settings_.pool_session_max_lifetime = seconds(100);
  Open();
  ParkFor(1);
  Pass(seconds(80));
  EndTurn();
  EXPECT_TRUE(taken_.empty());
  Pass(seconds(20));
  EndTurn();
  EXPECT_EQ(taken_.size(), 1u);
  EXPECT_EQ(closing_.size(), 1u);
  EXPECT_EQ(PoolOf(kNode, kRole)->counters.closed_lifetime, 1u);
}

TEST_F(PoolParkingTest, TheMemoryCheckTakesParkedOnesBackAndStopsParking) {
  settings_.pool_session_context_check_gap = seconds(10);
  Open();
  ParkFor(1);
  HoldToPark(2);
  Pass(seconds(10));
  EndTurn();
  EXPECT_EQ(taken_, std::vector<LeaseId>{Lease(1)});
  EXPECT_EQ(measuring_.size(), 1u);
  EXPECT_EQ(Park(2), Parked::kNo);
  EXPECT_TRUE(recalled_.empty());
  GiveBack(2);
  EXPECT_EQ(measuring_.size(), 2u);
}

TEST_F(PoolParkingTest, NoWarningOfLongLeasesForParkedOnes) {
  settings_.lease_warn_after = seconds(5);
  Open();
  ParkFor(1);
  HoldToPark(2);
  Pass(seconds(5));
  EndTurn();
  ASSERT_EQ(long_leases_.size(), 1u);
  EXPECT_EQ(long_leases_[0].first, 2u);
  ASSERT_EQ(Retake(1), Retaken::kYes);
  Pass(seconds(5));
  EndTurn();
  EXPECT_EQ(long_leases_.size(), 1u);  // it was taken again meanwhile
  Pass(seconds(5));
  EndTurn();
  ASSERT_EQ(long_leases_.size(), 2u);
  EXPECT_EQ(long_leases_[1].first, 1u);
}

// --- sessions, counters, cells ------------------------------------------------------------------

TEST_F(PoolParkingTest, AtTheSessionsEndParkedOnesAreResetOthersClosed) {
  Open();
  ParkFor(1);
  HoldToPark(2);
  LeaseCell* left = SlotOf(2)->parking.cell;
  book_->Abandon(1, Lease(1), now_);
  EndTurn();
  EXPECT_EQ(resetting_.size(), 1u);
  EXPECT_TRUE(closing_.empty());
  book_->Abandon(2, Lease(2), now_);
  EndTurn();
  EXPECT_EQ(closing_.size(), 1u);
  EXPECT_EQ(left->word.load(), 0u);
}

TEST_F(PoolParkingTest, RetakesCountAsAcquiredAndHits) {
  Open();
  ParkFor(1);
  const Pool& pool = *PoolOf(kNode, kRole);
  const std::uint64_t acquired = pool.counters.acquired;
  const std::uint64_t hits = pool.counters.hits;
  for (int i = 0; i < 3; ++i) {
    ASSERT_EQ(Retake(1), Retaken::kYes);
    ASSERT_EQ(Park(1), Parked::kYes);
  }
  book_->CountParked();
  book_->CountParked();
  EXPECT_EQ(pool.counters.acquired, acquired + 3);
  EXPECT_EQ(pool.counters.hits, hits + 3);
  EXPECT_EQ(SlotOf(1)->age.leases, 4u);
  ASSERT_EQ(Retake(1), Retaken::kYes);
  GiveBack(1);
  EXPECT_EQ(pool.counters.acquired, acquired + 4);
}

TEST_F(PoolParkingTest, ViewsShowThemParkedAndNotLeased) {
  Open();
  ParkFor(1);
  HoldToPark(2);
  EXPECT_EQ(ShownLeased(), 1);
  EXPECT_EQ(ShownParked(), 1);
  ASSERT_EQ(Park(2), Parked::kYes);
  EXPECT_EQ(ShownLeased(), 0);
  EXPECT_EQ(ShownParked(), 2);
  ASSERT_EQ(Retake(1), Retaken::kYes);
  EXPECT_EQ(ShownLeased(), 1);
  EXPECT_EQ(ShownParked(), 1);
}

TEST_F(PoolParkingTest, ASessionHasCellsForSixteen) {
  settings_.max_pool_size = 20;
  Open();
  for (std::size_t count = 1; count <= kCellsOfASession + 1; ++count) {
    AskWithCells(1);
    ConnectAll();
    ASSERT_EQ(held_[1].size(), count);
    EXPECT_EQ(book_->FindLease(held_[1].back())->parking.cell != nullptr,
              count <= kCellsOfASession);
  }
  GiveBack(1);
  FinishResets();
  HoldToPark(1);
}

TEST_F(PoolParkingTest, NodesBeyondTheCellsHaveNoneUntilOneIsDropped) {
  book_ = std::make_unique<PoolBook>(this, this, this, settings_, 1, node_cells_);
  for (NodeId id = 1; id <= kCellsOfAWorker + 1; ++id) {
    nodes_.push_back(NodeOf(id));
  }
  SendCatalog();
  EXPECT_NE(book_->directory().FindNode(kCellsOfAWorker)->cell, nullptr);
  EXPECT_EQ(book_->directory().FindNode(kCellsOfAWorker + 1)->cell, nullptr);
  nodes_.erase(nodes_.begin());
  SendCatalog();
  ASSERT_EQ(book_->directory().FindNode(1), nullptr);
  nodes_.push_back(NodeOf(kCellsOfAWorker + 2));
  SendCatalog();
  ASSERT_NE(book_->directory().FindNode(kCellsOfAWorker + 2)->cell, nullptr);
  EXPECT_EQ(book_->directory().FindNode(kCellsOfAWorker + 2)->cell, &node_cells_[0]);
}

TEST_F(PoolParkingTest, AParkedOneThatTheDatanodeHungUpOnCloses) {
  settings_.pool_conn_keepalive = kOff;
  Open();
  ParkFor(1);
  book_->OnBroken(SlotOf(1), "it hung up", now_);
  EndTurn();
  EXPECT_EQ(closing_.size(), 1u);
}

}  // namespace
}  // namespace polarx
