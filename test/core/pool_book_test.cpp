// Lending: who gets what, who waits, who is turned away.
#include "core/pool_book.h"

#include "pool_book_fixture.h"

namespace polarx {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST_F(PoolBookTest, OpensAConnectionForTheFirstRequestAndReusesItForTheNext) {
  Open();
  Hold(1);
  EXPECT_EQ(connects_, 1);
  GiveBack(1);
  FinishResets();
  Hold(2);
  EXPECT_EQ(connects_, 1);
  EXPECT_EQ(PoolOf(kNode, kRole)->counters.hits, 1u);
  EXPECT_EQ(PoolOf(kNode, kRole)->counters.acquired, 2u);
}

TEST_F(PoolBookTest, LendsTheSlotLastUsedFirst) {
  Open();
  Hold(1);
  Hold(2);
  const SlotId second = book_->FindLease(held_[2][0])->id;
  GiveBack(1);
  FinishResets();
  GiveBack(2);
  FinishResets();
  Hold(3);
  EXPECT_EQ(book_->FindLease(held_[3][0])->id, second);
}

TEST_F(PoolBookTest, AReleasedSlotIsResetBeforeAnyoneElseHoldsIt) {
  settings_.max_pool_size = 1;
  Open();
  Hold(1);
  GiveBack(1, protocol::ReleaseKind::kInTransaction);
  EXPECT_EQ(last_reset_, protocol::ReleaseKind::kInTransaction);
  Ask(2);
  EndTurn();
  EXPECT_TRUE(held_[2].empty());
  FinishResets();
  EXPECT_EQ(held_[2].size(), 1u);
}

TEST_F(PoolBookTest, ASlotReleasedInAnUnknownStateIsClosed) {
  Open();
  Hold(1);
  GiveBack(1, protocol::ReleaseKind::kClose);
  EXPECT_EQ(closing_.size(), 1u);
  EXPECT_EQ(Total(kNode), 1) << "it counts until the datanode's end of file";
  FinishCloses();
  EXPECT_EQ(Total(kNode), 0);
}

TEST_F(PoolBookTest, WhatABorrowerMayHaveChangedIsVerifiedOnItsOwnConnectionAlone) {
  Open();
  Hold(1);
  Hold(2);
  EXPECT_TRUE(book_->Release(1, held_[1][0], protocol::ReleaseKind::kClose, now_, {"my.setting"}));
  held_[1].clear();
  GiveBack(2);
  EXPECT_TRUE(last_verify_.empty()) << "it was said of a connection that is closed";
  FinishResets();
  Hold(3);
  EXPECT_TRUE(book_->Release(3, held_[3][0], protocol::ReleaseKind::kClean, now_, {"my.setting"}));
  EXPECT_EQ(last_verify_, std::vector<std::string>{"my.setting"});
}

TEST_F(PoolBookTest, RejectsAtTheLimitOnceEverySlotIsLeased) {
  Open();
  Hold(1);
  Pass(seconds(1));
  Hold(2);
  Ask(3);
  EndTurn();
  ASSERT_EQ(RejectionOf(3), "53300");
  const Status& status = rejected_[3];
  EXPECT_EQ(status.message(), "pool of datanode \"dn1\" is full");
  EXPECT_NE(status.detail().find("2 of at most 2 connections are leased"), std::string::npos);
  EXPECT_NE(status.detail().find("Process 5001 has held one"), std::string::npos);
  EXPECT_NE(status.hint().find("pooler.max_pool_size"), std::string::npos);
  EXPECT_EQ(PoolOf(kNode, kRole)->counters.rejected, 1u);
}

TEST_F(PoolBookTest, WaitsForASlotThatIsOnItsWayInsteadOfRejecting) {
  settings_.max_pool_size = 1;
  Open();
  Hold(1);
  GiveBack(1);
  Ask(2);
  EndTurn();
  EXPECT_EQ(RejectionOf(2), "");
  FinishResets();
  EXPECT_EQ(held_[2].size(), 1u);
}

TEST_F(PoolBookTest, AReleaseOfTheSameTurnSavesARequestFromRejection) {
  settings_.max_pool_size = 1;
  Open();
  Hold(1);
  Ask(2);
  ASSERT_TRUE(book_->Release(1, held_[1][0], protocol::ReleaseKind::kClean, now_));
  EndTurn();
  FinishResets();
  EXPECT_EQ(RejectionOf(2), "");
  EXPECT_EQ(held_[2].size(), 1u);
}

TEST_F(PoolBookTest, ServesWaitingRequestsInOrderOfArrival) {
  settings_.max_pool_size = 1;
  Open();
  Hold(1);
  for (SessionId session : {7, 3, 5}) {
    Ask(session, {{kNode, kRole}}, seconds(10));
    EndTurn();
  }
  for (SessionId session : {1, 7, 3}) {
    GiveBack(session);
    FinishResets();
  }
  EXPECT_EQ(grants_, (std::vector<SessionId>{1, 7, 3, 5}));
}

TEST_F(PoolBookTest, WhicheverSlotBecomesFreeFirstServesTheOldestRequest) {
  Open();
  Hold(1);
  Ask(2, {{kNode, kRole}}, seconds(10));
  EndTurn();
  ASSERT_EQ(connecting_.size(), 1u);
  GiveBack(1);
  FinishResets();
  EXPECT_EQ(held_[2].size(), 1u) << "not tied to the connect that it caused";
}

TEST_F(PoolBookTest, QueueTimeoutEndsTheWaitAndNamesTheHolderAndWhatItWaitsFor) {
  settings_.max_pool_size = 1;
  Open();
  Hold(1);
  Ask(9, {{kOtherNode, kRole}});
  EndTurn();
  ConnectAll();
  Ask(1, {{kOtherNode, kRole}}, seconds(60));
  Ask(2, {{kNode, kRole}}, milliseconds(500));
  EndTurn();
  EXPECT_EQ(book_->NextDeadline(), now_ + milliseconds(500));
  Pass(milliseconds(500));
  EndTurn();
  ASSERT_EQ(RejectionOf(2), "53300");
  EXPECT_EQ(rejected_[2].message(), "pool of datanode \"dn1\" is full (waited for 0.5 s)");
  EXPECT_NE(rejected_[2].detail().find("Process 5001"), std::string::npos);
  EXPECT_NE(rejected_[2].detail().find("waits for datanode \"dn2\""), std::string::npos);
}

TEST_F(PoolBookTest, SeveralNodesComeTogetherOrNotAtAll) {
  settings_.max_pool_size = 1;
  Open();
  Hold(1);
  Ask(2, {{kNode, kRole}, {kOtherNode, kRole}}, seconds(10));
  EndTurn();
  ConnectAll();
  EXPECT_TRUE(held_[2].empty());
  GiveBack(1);
  FinishResets();
  EXPECT_EQ(held_[2].size(), 2u);
}

TEST_F(PoolBookTest, OppositeOrdersInSingleRequestsCannotDeadlock) {
  settings_.max_pool_size = 1;
  Open();
  Ask(1, {{kNode, kRole}, {kOtherNode, kRole}}, seconds(10));
  Ask(2, {{kOtherNode, kRole}, {kNode, kRole}}, seconds(10));
  EndTurn();
  ConnectAll();
  EXPECT_EQ(held_[1].size(), 2u);
  GiveBack(1);
  FinishResets();
  EXPECT_EQ(held_[2].size(), 2u);
}

TEST_F(PoolBookTest, AtTheNodesLimitIdleSlotsOfItsOtherPoolsAreGivenUp) {
  Open();
  Hold(1);
  Hold(2);
  GiveBack(1);
  GiveBack(2);
  FinishResets();
  Ask(3, {{kNode, kOtherRole}});
  EndTurn();
  EXPECT_EQ(closing_.size(), 1u) << "one is enough";
  EXPECT_EQ(RejectionOf(3), "");
  FinishCloses();
  ConnectAll();
  EXPECT_EQ(held_[3].size(), 1u);
  EXPECT_EQ(Total(kNode), 2);
}

TEST_F(PoolBookTest, AFullNodeIsSharedInOrderOfArrivalOverItsPools) {
  settings_.max_pool_size = 1;
  Open();
  Hold(1);
  Ask(2, {{kNode, kOtherRole}}, seconds(10));
  EndTurn();
  Ask(3, {{kNode, kRole}}, seconds(10));
  EndTurn();
  GiveBack(1);
  FinishResets();
  EXPECT_TRUE(held_[3].empty()) << "the older request of the other pool comes first";
  FinishCloses();
  ConnectAll();
  EXPECT_EQ(held_[2].size(), 1u);
}

TEST_F(PoolBookTest, NeverOpensMoreThanTheNodesLimit) {
  settings_.max_pool_size = 5;
  Open();
  for (SessionId session = 1; session <= 20; ++session) {
    Ask(session, {{kNode, session % 2 == 0 ? kRole : kOtherRole}}, seconds(10));
  }
  EndTurn();
  EXPECT_EQ(Total(kNode), 5);
  ConnectAll();
  EXPECT_EQ(Total(kNode), 5);
}

TEST_F(PoolBookTest, OpensEightConnectionsOfANodeAtATime) {
  settings_.max_pool_size = 100;
  Open();
  for (SessionId session = 1; session <= 20; ++session) {
    Ask(session, {{kNode, kRole}}, seconds(10));
  }
  EndTurn();
  EXPECT_EQ(connecting_.size(), 8u);
  ConnectAll();
  EXPECT_EQ(grants_.size(), 20u);
}

TEST_F(PoolBookTest, ADeadIdleSlotIsReplacedNotLent) {
  Open();
  Hold(1);
  GiveBack(1);
  const SlotId slot = resetting_[0]->id;
  FinishResets();
  dead_.insert(slot);
  Hold(2);
  EXPECT_NE(book_->FindLease(held_[2][0])->id, slot);
  EXPECT_EQ(PoolOf(kNode, kRole)->counters.closed_error, 1u);
}

TEST_F(PoolBookTest, AFailedConnectIsToldToTheOneWhoWaitsAndHoldsTheNodeOff) {
  Open();
  Ask(1);
  EndTurn();
  FailConnects(Status("08001", "could not connect to datanode \"dn1\": refused"));
  EXPECT_EQ(RejectionOf(1), "08001");
  EXPECT_EQ(connects_, 1);
  Ask(2, {{kNode, kOtherRole}});
  EndTurn();
  EXPECT_EQ(RejectionOf(2), "08001") << "at once, without a connect";
  EXPECT_EQ(connects_, 1);
  Ask(3, {{kOtherNode, kRole}});
  EndTurn();
  ConnectAll();
  EXPECT_EQ(held_[3].size(), 1u) << "the other node does not notice";
  EXPECT_EQ(logs_.size(), 1u);
}

TEST_F(PoolBookTest, OneProbeFindsTheNodesReturn) {
  Open();
  Ask(1);
  EndTurn();
  FailConnects(Status("08001", "refused"));
  Pass(HoldOff::kFirstDelay);
  Ask(2);
  Ask(3);
  EndTurn();
  EXPECT_EQ(connecting_.size(), 1u);
  EXPECT_EQ(RejectionOf(3), "08001");
  ConnectAll();
  EXPECT_EQ(held_[2].size(), 1u);
  EXPECT_EQ(logs_.size(), 2u) << "trouble and recovery";
}

TEST_F(PoolBookTest, AWrongPasswordHarmsThatPoolAlone) {
  Open();
  Ask(1);
  EndTurn();
  FailConnects(Status("28P01", "password authentication failed"));
  EXPECT_EQ(RejectionOf(1), "28P01");
  Ask(2, {{kNode, kOtherRole}});
  EndTurn();
  ConnectAll();
  EXPECT_EQ(held_[2].size(), 1u);
}

TEST_F(PoolBookTest, ARestrictedRoleNeedsASlotThatUsedItsPassword) {
  password_used_ = false;
  Open();
  mappings_[0].restricted = true;
  book_->SetCatalog(nodes_, mappings_, now_);
  Ask(1);
  EndTurn();
  ConnectAll();
  EXPECT_EQ(RejectionOf(1), "2F003");
  EXPECT_EQ(PoolOf(kNode, kRole)->count(SlotState::kIdle), 1) << "others may use it";
}

TEST_F(PoolBookTest, AMappingThatCannotBeUsedIsToldAtOnce) {
  Open();
  mappings_[0].status = Status("0A000", "datanode \"dn1\" demands TLS");
  book_->SetCatalog(nodes_, mappings_, now_);
  Ask(1);
  EXPECT_EQ(RejectionOf(1), "0A000");
}

TEST_F(PoolBookTest, AWithdrawnRequestIsServedNoMore) {
  settings_.max_pool_size = 1;
  Open();
  Hold(1);
  Ask(2, {{kNode, kRole}}, seconds(10));
  EndTurn();
  EXPECT_TRUE(book_->Withdraw(2, 1));
  EXPECT_FALSE(book_->Withdraw(2, 1));
  GiveBack(1);
  FinishResets();
  EXPECT_TRUE(held_[2].empty());
  EXPECT_EQ(book_->TicketOf(2), nullptr);
}

TEST_F(PoolBookTest, ALeaseThatItsSessionNeverSawIsTakenBackWithoutAReset) {
  Open();
  Hold(1);
  EXPECT_TRUE(book_->Return(1, held_[1][0], now_));
  EXPECT_EQ(PoolOf(kNode, kRole)->count(SlotState::kIdle), 1);
  EXPECT_TRUE(resetting_.empty());
}

TEST_F(PoolBookTest, NobodyGivesBackAnothersLease) {
  Open();
  Hold(1);
  EXPECT_FALSE(book_->Release(2, held_[1][0], protocol::ReleaseKind::kClean, now_));
  EXPECT_FALSE(book_->Release(1, held_[1][0] + 1, protocol::ReleaseKind::kClean, now_));
  EXPECT_NE(book_->FindLease(held_[1][0]), nullptr);
}

TEST_F(PoolBookTest, CountsRequestsAsTheStatLineTellsThem) {
  Open();
  Hold(1);
  GiveBack(1);
  FinishResets();
  Pass(milliseconds(3));
  Hold(2);
  const RequestCounters& counters = book_->counters();
  EXPECT_EQ(counters.client_request_conn_total, 2u);
  EXPECT_EQ(counters.client_request_from_thread, 1u);
  EXPECT_EQ(counters.client_request_from_hashtab, 1u);
  EXPECT_EQ(counters.acquire_conn_from_thread, 1u);
  EXPECT_EQ(counters.acquire_conn_from_hashtab, 1u);
}

}  // namespace
}  // namespace polarx
