// What a pool keeps in stock, and what happens to it when settings or catalog change.
#include "pool_book_fixture.h"

namespace polarx {
namespace {

using std::chrono::seconds;

TEST_F(PoolBookTest, FillsTheMinimaRoundRobinForHalfOfTheNode) {
  settings_.min_pool_size = 5;
  settings_.max_pool_size = 12;
  Open();
  ConnectAll();
  EXPECT_EQ(Total(kNode), 6);
  EXPECT_EQ(PoolOf(kNode, kRole)->total(), 3);
  EXPECT_EQ(PoolOf(kNode, kOtherRole)->total(), 3);
}

TEST_F(PoolBookTest, KeepsAReserveWhileInUse) {
  settings_.min_free_size = 3;
  settings_.max_pool_size = 20;
  Open();
  EXPECT_EQ(connects_, 0) << "a pool at rest needs no reserve";
  Hold(1);
  ConnectAll();
  EXPECT_EQ(PoolOf(kNode, kRole)->count(SlotState::kIdle), 3);
}

TEST_F(PoolBookTest, ShrinksToItsMinimumAndThenNeitherOpensNorCloses) {
  settings_.min_pool_size = 5;
  settings_.min_free_size = 5;
  settings_.max_pool_size = 300;
  settings_.pool_session_max_lifetime = seconds(1000000);
  Open();
  ConnectAll();
  UseTogether(40);
  EXPECT_EQ(PoolOf(kNode, kRole)->total(), 45);
  Pass(settings_.pool_conn_keepalive);
  book_->Maintain(now_);
  EndTurn();
  FinishCloses();
  EXPECT_EQ(PoolOf(kNode, kRole)->total(), 5);
  const int connects = connects_;
  const int closes = closes_;
  for (int round = 0; round < 10; ++round) {
    Pass(seconds(30));
    book_->Maintain(now_);
    EndTurn();
    FinishCloses();
  }
  EXPECT_EQ(connects_, connects);
  EXPECT_EQ(closes_, closes);
}

TEST_F(PoolBookTest, KeepaliveOffNeverCloses) {
  settings_.pool_conn_keepalive = kOff;
  settings_.pool_session_max_lifetime = seconds(1000000);
  Open();
  Hold(1);
  GiveBack(1);
  FinishResets();
  Pass(seconds(100000));
  book_->Maintain(now_);
  EndTurn();
  EXPECT_EQ(closes_, 0);
}

TEST_F(PoolBookTest, ReplacesWhatIsOlderThanItsLifetime) {
  settings_.min_pool_size = 1;
  settings_.max_pool_size = 4;
  Open();
  ConnectAll();
  Pass(settings_.pool_session_max_lifetime);
  book_->Maintain(now_);
  EndTurn();
  FinishCloses();
  ConnectAll();
  EXPECT_EQ(PoolOf(kNode, kRole)->counters.closed_lifetime, 1u);
  EXPECT_EQ(PoolOf(kNode, kRole)->count(SlotState::kIdle), 1);
}

TEST_F(PoolBookTest, ALeasedSlotPastItsLifetimeClosesAtRelease) {
  Open();
  Hold(1);
  Pass(settings_.pool_session_max_lifetime);
  GiveBack(1);
  EXPECT_EQ(closing_.size(), 1u);
  EXPECT_EQ(PoolOf(kNode, kRole)->counters.closed_lifetime, 1u);
}

TEST_F(PoolBookTest, AChangedMappingMovesToANewPool) {
  Open();
  Hold(1);
  Hold(2);
  GiveBack(2);
  FinishResets();
  Pool* old = PoolOf(kNode, kRole);
  mappings_[0].options = {{"port", "5555"}, {"user", "alice"}};
  book_->SetCatalog(nodes_, mappings_, now_);
  EndTurn();
  EXPECT_NE(PoolOf(kNode, kRole), old);
  EXPECT_EQ(closing_.size(), 1u) << "the idle one";
  FinishCloses();
  GiveBack(1);
  EXPECT_EQ(closing_.size(), 1u) << "the leased one at its release";
  FinishCloses();
  EXPECT_EQ(book_->directory().pools().size(), 4u) << "the retired pool is gone";
}

TEST_F(PoolBookTest, AWaitingRequestFollowsItsMappingToTheNewPool) {
  settings_.max_pool_size = 1;
  Open();
  Hold(1);
  Ask(2, {{kNode, kRole}}, seconds(10));
  EndTurn();
  mappings_[0].options = {{"port", "5555"}, {"user", "alice"}};
  book_->SetCatalog(nodes_, mappings_, now_);
  EndTurn();
  GiveBack(1);
  FinishCloses();
  ConnectAll();
  ASSERT_EQ(held_[2].size(), 1u);
  EXPECT_EQ(book_->FindLease(held_[2][0])->pool, PoolOf(kNode, kRole));
}

TEST_F(PoolBookTest, ARoleThatHoldsOrWaitsIsKnownForAsLong) {
  settings_.max_pool_size = 1;
  Open();
  for (const RoleId role : {kRole, kOtherRole, RoleId{12}}) {
    book_->NoteUse({kNode, role}, now_);
  }
  Hold(1);
  Ask(2, {{kNode, kOtherRole}}, std::chrono::hours(24));
  EndTurn();
  Pass(std::chrono::hours(2));
  EXPECT_EQ(book_->KnownPairs(now_),
            (std::vector<MappingQuestion>{{kNode, kRole}, {kNode, kOtherRole}}));
}

TEST_F(PoolBookTest, ADroppedNodeTellsThoseWhoWaitAndEndsWithItsLastLease) {
  settings_.max_pool_size = 1;
  Open();
  Hold(1);
  Ask(2, {{kNode, kRole}}, seconds(10));
  EndTurn();
  book_->SetCatalog({NodeOf(kOtherNode)}, {mappings_[2], mappings_[3]}, now_);
  EndTurn();
  EXPECT_EQ(RejectionOf(2), "42704");
  EXPECT_NE(book_->directory().FindNode(kNode), nullptr);
  GiveBack(1);
  FinishCloses();
  EXPECT_EQ(book_->directory().FindNode(kNode), nullptr);
}

TEST_F(PoolBookTest, ACatalogThatIsTheSameChangesNothing) {
  settings_.min_pool_size = 1;
  settings_.max_pool_size = 4;
  Open();
  ConnectAll();
  const int connects = connects_;
  book_->SetCatalog(nodes_, mappings_, now_);
  EndTurn();
  EXPECT_EQ(connects_, connects);
  EXPECT_EQ(closes_, 0);
}

TEST_F(PoolBookTest, AMovedNodeIsTriedAtOnceAgain) {
  Open();
  Ask(1);
  EndTurn();
  FailConnects(Status("08001", "refused"));
  nodes_[0].port = 5555;
  mappings_[0].options = {{"port", "5555"}, {"user", "alice"}};
  book_->SetCatalog(nodes_, mappings_, now_);
  Ask(2);
  EndTurn();
  ConnectAll();
  EXPECT_EQ(held_[2].size(), 1u);
}

TEST_F(PoolBookTest, CleanClosesIdleSlotsAndMarksLeasedOnes) {
  Open();
  Hold(1);
  Hold(2);
  GiveBack(2);
  FinishResets();
  EXPECT_EQ(book_->Clean(kNode, "bob", now_), 0);
  EXPECT_EQ(book_->Clean(kNode, "alice", now_), 2);
  EXPECT_EQ(closing_.size(), 1u);
  GiveBack(1);
  EXPECT_EQ(closing_.size(), 2u);
}

TEST_F(PoolBookTest, ALoweredLimitIsReachedByClosingIdleSlots) {
  settings_.max_pool_size = 10;
  Open();
  UseTogether(6);
  settings_.max_pool_size = 2;
  book_->Apply(settings_, now_);
  EndTurn();
  FinishCloses();
  EXPECT_EQ(Total(kNode), 2);
}

TEST_F(PoolBookTest, ALoweredLimitOfANodeWaitsForNoRound) {
  settings_.max_pool_size = 10;
  Open();
  UseTogether(6);
  nodes_[0].max_pool_size = 2;
  book_->SetCatalog(nodes_, mappings_, now_);
  EndTurn();
  FinishCloses();
  EXPECT_EQ(Total(kNode), 2);
}

TEST_F(PoolBookTest, AnEvictedMinimumIsNotRefilledWhileRequestsHadToWait) {
  settings_.min_pool_size = 1;
  settings_.max_pool_size = 2;
  Open();
  ConnectAll();
  ASSERT_EQ(Total(kNode), 1);
  Pool* minimum =
      PoolOf(kNode, kRole)->total() == 1 ? PoolOf(kNode, kRole) : PoolOf(kNode, kOtherRole);
  const RoleId other = minimum == PoolOf(kNode, kRole) ? kOtherRole : kRole;
  Ask(1, {{kNode, other}});
  EndTurn();
  ConnectAll();
  Ask(2, {{kNode, other}}, seconds(10));
  EndTurn();
  FinishCloses();
  ConnectAll();
  ASSERT_EQ(held_[2].size(), 1u);
  GiveBack(1, protocol::ReleaseKind::kClose);
  FinishCloses();
  const int connects = connects_;
  Pass(seconds(1));
  book_->Maintain(now_);
  EndTurn();
  EXPECT_EQ(connects_, connects);
  Pass(settings_.pool_conn_keepalive);
  book_->Maintain(now_);
  EndTurn();
  EXPECT_GE(connects_, connects);
}

TEST_F(PoolBookTest, ARefillThatFailedTurnsNoRequestAway) {
  settings_.min_pool_size = 1;
  Open();
  FailConnects(Status("08001", "refused"));
  ASSERT_TRUE(book_->directory().FindNode(kNode)->hold_off.active());
  Ask(1);
  EndTurn();
  EXPECT_EQ(RejectionOf(1), "");
  ConnectAll();
  EXPECT_EQ(held_[1].size(), 1u);
}

TEST_F(PoolBookTest, ARequestIsJudgedByAnAttemptThatBeganAfterIt) {
  settings_.min_pool_size = 1;
  Open();
  Pass(std::chrono::milliseconds(1));
  Ask(1);
  EndTurn();
  FailConnects(
      Status("57P03", "the database system is starting up"));  // the refill's, then its own
  EXPECT_EQ(RejectionOf(1), "08001");
  EXPECT_GT(connects_, 2) << "an attempt of its own";
  Ask(2);
  EndTurn();
  EXPECT_EQ(RejectionOf(2), "08001") << "the next one is turned away at once";
}

}  // namespace
}  // namespace polarx
