// What administrators ask for: pause and resume, statistics, check; and what sessions still hold
// from an earlier worker.
#include "pool_book_fixture.h"

namespace polarx {
namespace {

using std::chrono::seconds;

TEST_F(PoolBookTest, APausedNodeLendsNothingUntilItIsResumed) {
  settings_.max_pool_size = 8;
  Open();
  UseTogether(1);
  book_->Pause(kNode, true, now_);
  Ask(1);
  Ask(2);
  EndTurn();
  EXPECT_TRUE(held_[1].empty());
  EXPECT_EQ(RejectionOf(1), "");
  EXPECT_TRUE(connecting_.empty());
  Ask(3, {{kOtherNode, kRole}});
  EndTurn();
  ConnectAll();
  EXPECT_EQ(held_[3].size(), 1u) << "other nodes go on";
  book_->Pause(kNode, false, now_);
  EndTurn();
  EXPECT_EQ(held_[1].size(), 1u);
  ConnectAll();
  EXPECT_EQ(held_[2].size(), 1u);
}

TEST_F(PoolBookTest, ARequestWaitsTenSecondsForAPausedNode) {
  Open();
  book_->Pause(0, true, now_);
  Ask(1);
  EndTurn();
  Pass(seconds(9));
  EndTurn();
  EXPECT_EQ(RejectionOf(1), "");
  EXPECT_LE(book_->NextDeadline(), now_ + seconds(1));
  Pass(seconds(1));
  EndTurn();
  EXPECT_EQ(RejectionOf(1), "53300");
  EXPECT_EQ(rejected_[1].message(), "datanode \"dn1\" is paused (waited for 10.0 s)");
  EXPECT_EQ(PoolOf(kNode, kRole)->counters.rejected, 0u);
}

TEST_F(PoolBookTest, QueueTimeoutBoundsTheWaitForAPausedNode) {
  Open();
  book_->Pause(kNode, true, now_);
  Ask(1, {{kNode, kRole}}, seconds(3));
  Ask(2, {{kNode, kRole}}, seconds(30));
  EndTurn();
  Pass(seconds(3));
  EndTurn();
  EXPECT_EQ(RejectionOf(1), "53300");
  Pass(seconds(26));
  EndTurn();
  EXPECT_EQ(RejectionOf(2), "");
}

TEST_F(PoolBookTest, AfterResumeARequestWithoutQueueTimeoutHasNoDeadline) {
  Open();
  book_->Pause(kNode, true, now_);
  Ask(1);
  EndTurn();
  Pass(seconds(5));
  book_->Pause(kNode, false, now_);
  EndTurn();
  Pass(seconds(6));  // the connect takes its time
  EndTurn();
  EXPECT_EQ(RejectionOf(1), "");
  ConnectAll();
  EXPECT_EQ(held_[1].size(), 1u);
}

TEST_F(PoolBookTest, AWaitingRequestIsHeldByALaterPause) {
  Open();
  Ask(1);
  EndTurn();
  book_->Pause(kNode, true, now_);
  ConnectAll();
  EXPECT_TRUE(held_[1].empty());
  Pass(seconds(10));
  EndTurn();
  EXPECT_EQ(RejectionOf(1), "53300");
}

TEST_F(PoolBookTest, LeasesOfAPausedNodeGoOnAndComeBack) {
  Open();
  Hold(1);
  book_->Pause(kNode, true, now_);
  GiveBack(1);
  FinishResets();
  EXPECT_EQ(PoolOf(kNode, kRole)->count(SlotState::kIdle), 1);
}

TEST_F(PoolBookTest, ANodeThatComesLaterIsPausedWithAll) {
  Open();
  book_->Pause(0, true, now_);
  nodes_.push_back(NodeOf(7));
  mappings_.push_back(MappingOf(7, kRole, "alice"));
  book_->SetCatalog(nodes_, mappings_, now_);
  Ask(1, {{7, kRole}});
  EndTurn();
  ConnectAll();
  EXPECT_TRUE(held_[1].empty());
  book_->Pause(0, false, now_);
  EndTurn();
  ConnectAll();
  EXPECT_EQ(held_[1].size(), 1u);
}

TEST_F(PoolBookTest, ResetStatsTakesCountersAndHistogramsToZero) {
  Open();
  UseTogether(2);
  Pool* pool = PoolOf(kNode, kRole);
  ASSERT_GT(pool->counters.acquired, 0u);
  book_->ResetStats();
  EXPECT_EQ(pool->counters.acquired, 0u);
  EXPECT_EQ(pool->counters.connects, 0u);
  EXPECT_EQ(book_->counters().client_request_conn_total, 0u);
  EXPECT_EQ(pool->total(), 2);
  UseTogether(1);
  EXPECT_EQ(pool->counters.acquired, 1u);
}

TEST_F(PoolBookTest, RequestsThatSetParametersAreCounted) {
  Open();
  UseTogether(1);
  Ask(1, {{kNode, kRole}}, Duration::zero(), true);
  EndTurn();
  EXPECT_EQ(book_->counters().acquire_conn_from_hashtab_and_set, 1u);
}

TEST_F(PoolBookTest, CheckComparesTheMembers) {
  Open();
  EXPECT_TRUE(book_->directory().Matches(nodes_));
  std::vector<NodeDefinition> other = nodes_;
  other[1].port = 5433;
  EXPECT_FALSE(book_->directory().Matches(other));
  other = nodes_;
  other.pop_back();
  EXPECT_FALSE(book_->directory().Matches(other));
  other = nodes_;
  other.push_back(NodeOf(9));
  EXPECT_FALSE(book_->directory().Matches(other));
  std::reverse(nodes_.begin(), nodes_.end());
  EXPECT_TRUE(book_->directory().Matches(nodes_));
  nodes_.push_back(NodeOf(9));
  nodes_.back().member = false;
  book_->SetCatalog(nodes_, mappings_, now_);
  nodes_.pop_back();
  EXPECT_TRUE(book_->directory().Matches(nodes_)) << "servers of other wrappers are none";
}

TEST_F(PoolBookTest, WhatSessionsStillHoldCountsForTheMaximum) {
  Open();
  book_->SetSurvivors({{kNode, 1}});
  Hold(1);
  Ask(2);
  EndTurn();
  EXPECT_EQ(RejectionOf(2), "53300") << "one lease here, one from before";
  Ask(3, {{kNode, kRole}}, seconds(60));
  EndTurn();
  ConnectAll();
  EXPECT_TRUE(held_[3].empty());
  book_->SetSurvivors({});
  EndTurn();
  ConnectAll();
  EXPECT_EQ(held_[3].size(), 1u);
}

TEST_F(PoolBookTest, APingEndsAHoldOffUnlessTheNodeIsFull) {
  Open();
  const auto fail = [this](const char* sqlstate) {
    Ask(1);
    EndTurn();
    FailConnects(Status(sqlstate, "no"));
  };
  fail("08001");
  ASSERT_TRUE(book_->directory().FindNode(kNode)->hold_off.active());
  book_->OnPing(kNode, true, 0.5, Status::Ok(), now_);
  EXPECT_FALSE(book_->directory().FindNode(kNode)->hold_off.active());
  fail("53300");
  book_->OnPing(kNode, true, 0.5, Status::Ok(), now_);
  EXPECT_TRUE(book_->directory().FindNode(kNode)->hold_off.active())
      << "it answers, but has no room";
}

TEST_F(PoolBookTest, APingThatFailsHoldsTheNodeOffUntilSomethingSucceeds) {
  Open();
  book_->OnPing(kNode, false, 0, Status("08001", "no answer"), now_);
  book_->OnPing(99, false, 0, Status("08001", "no answer"), now_);
  const Node& node = *book_->directory().FindNode(kNode);
  EXPECT_TRUE(node.hold_off.active());
  EXPECT_FALSE(node.known_up);
  EXPECT_EQ(logs_, std::vector<std::string>{"no answer"});
  book_->OnPing(kNode, false, 0, Status("08001", "no answer"), now_);
  EXPECT_EQ(logs_.size(), 1u) << "once for each change";
  Ask(1);
  EndTurn();
  ConnectAll();
  EXPECT_EQ(held_[1].size(), 1u) << "a request has its own attempt";
  EXPECT_FALSE(node.hold_off.active());
  book_->OnPing(kNode, true, 1.5, Status(), now_);
  EXPECT_TRUE(node.known_up);
  EXPECT_EQ(node.ping_ms, 1.5);
}

TEST_F(PoolBookTest, WhatAnEarlierWorkerLeftCountsForANodeThatIsKnownLater) {
  constexpr NodeId kLater = 3;
  Open();
  book_->SetSurvivors({{kLater, 2}});
  nodes_.push_back(NodeOf(kLater));
  mappings_.push_back(MappingOf(kLater, kRole, "alice"));
  book_->SetCatalog(nodes_, mappings_, now_);
  EXPECT_EQ(Total(kLater), 2);
  Ask(1, {{kLater, kRole}});
  EndTurn();
  EXPECT_EQ(RejectionOf(1), "53300") << "both of two";
  book_->SetSurvivors({{kLater, 1}});
  Ask(2, {{kLater, kRole}});
  EndTurn();
  ConnectAll();
  EXPECT_EQ(held_[2].size(), 1u);
}

}  // namespace
}  // namespace polarx
