// Several pools of one node: nobody is forgotten, nobody waits beside an idle slot.
#include "pool_book_fixture.h"

namespace polarx {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class PoolSharingTest : public PoolBookTest {
 protected:
  static constexpr RoleId kThirdRole = 12;

  void OpenThree(const std::string& user = "carol") {
    Open();
    mappings_.push_back(MappingOf(kNode, kThirdRole, user));
    book_->SetCatalog(nodes_, mappings_, now_);
    EndTurn();
  }
};

TEST_F(PoolSharingTest, ThreePoolsThatWaitForOneFullNodeComeToRest) {
  settings_.max_pool_size = 1;
  OpenThree();
  Hold(1);
  for (RoleId role : {kRole, kOtherRole, kThirdRole}) {
    Ask(role, {{kNode, role}}, seconds(5));
    EndTurn();
  }
  GiveBack(1);
  FinishResets();
  EXPECT_EQ(grants_.back(), SessionId{kRole});
}

TEST_F(PoolSharingTest, ASlotThatIsIdleAgainIsGivenUpForAnotherPoolsRequest) {
  Open();
  Hold(1);
  Hold(2);
  GiveBack(1);
  Ask(3, {{kNode, kOtherRole}}, seconds(30));
  EndTurn();
  EXPECT_TRUE(closing_.empty());
  FinishResets();
  EXPECT_EQ(closing_.size(), 1u);
}

TEST_F(PoolSharingTest, WhoIsLeftWithoutASlotByAnotherPoolIsTold) {
  settings_.max_pool_size = 1;
  Open();
  Hold(1);
  GiveBack(1);
  Ask(2);
  EndTurn();
  Ask(3, {{kNode, kOtherRole}});
  EndTurn();
  FinishResets();
  EXPECT_EQ(held_[2].size(), 1u);
  EXPECT_EQ(RejectionOf(3), "53300");
}

TEST_F(PoolSharingTest, TheEndOfAnOlderRequestFreesTheWay) {
  settings_.max_pool_size = 1;
  Open();
  Ask(1, {{kOtherNode, kRole}});
  EndTurn();
  ConnectAll();
  Ask(2, {{kNode, kRole}, {kOtherNode, kRole}}, seconds(2));
  EndTurn();
  ConnectAll();
  Ask(3, {{kNode, kOtherRole}}, seconds(60));
  EndTurn();
  Pass(seconds(3));
  EndTurn();
  EXPECT_EQ(RejectionOf(2), "53300");
  FinishCloses();
  ConnectAll();
  EXPECT_EQ(held_[3].size(), 1u);
}

TEST_F(PoolSharingTest, ARequestForSeveralNodesReservesNothing) {
  Open();
  for (SessionId session : {1, 2}) {
    Ask(session, {{kOtherNode, kRole}});
    EndTurn();
    ConnectAll();
  }
  Ask(3, {{kNode, kRole}, {kOtherNode, kRole}}, seconds(600));
  EndTurn();
  ConnectAll();
  Ask(4);
  EndTurn();
  EXPECT_EQ(held_[4].size(), 1u);
}

TEST_F(PoolSharingTest, RequestsBehindOneForSeveralNodesLetATurnEnd) {
  settings_.max_pool_size = 1;
  Open();
  Hold(1);
  Ask(2, {{kNode, kRole}, {kOtherNode, kRole}}, seconds(30));
  Ask(3, {{kNode, kOtherRole}}, seconds(30));
  Ask(4, {{kNode, kRole}}, seconds(30));
  EndTurn();
  ConnectAll();
  GiveBack(1);
  FinishResets();
  EXPECT_EQ(grants_.back(), SessionId{2});
}

TEST_F(PoolSharingTest, ClosingSlotsDoNotCountForTheMinimum) {
  settings_.max_pool_size = 40;
  settings_.min_pool_size = 5;
  Open();
  ConnectAll();
  UseTogether(10);
  for (int round = 0; round < 2; ++round) {
    Pass(seconds(100));
    book_->Maintain(now_);
    EndTurn();
  }
  EXPECT_EQ(PoolOf(kNode, kRole)->count(SlotState::kIdle), 5);
}

TEST_F(PoolSharingTest, APoolInSteadyUseKeepsItsReserve) {
  settings_.max_pool_size = 40;
  settings_.min_free_size = 3;
  settings_.pool_conn_keepalive = seconds(60);
  settings_.pool_session_max_lifetime = seconds(1000000);
  Open();
  UseTogether(1);
  ConnectAll();
  const int connects = connects_;
  for (int round = 0; round < 30; ++round) {
    Pass(seconds(10));
    Hold(1);
    GiveBack(1);
    FinishResets();
    book_->Maintain(now_);
    EndTurn();
    FinishCloses();
    ConnectAll();
  }
  EXPECT_EQ(connects_, connects) << "no reserve is closed and opened again";
}

TEST_F(PoolSharingTest, ALimitOfOneRoleHoldsOnlyItOff) {
  settings_.max_pool_size = 10;
  Open();
  Ask(1);
  EndTurn();
  FailConnects(Status("53300", "too many connections for role"), FailureScope::kPool);
  EXPECT_EQ(RejectionOf(1), "08001");
  Ask(2, {{kNode, kOtherRole}});
  EndTurn();
  ConnectAll();
  EXPECT_EQ(held_[2].size(), 1u);
}

TEST_F(PoolSharingTest, NothingIsGivenUpForAPoolThatMayNotConnect) {
  Open();
  Ask(2, {{kNode, kOtherRole}});
  EndTurn();
  FailConnects(Status("28P01", "wrong password"));
  for (SessionId session : {3, 4}) {
    Hold(session);
  }
  GiveBack(3);
  GiveBack(4);
  FinishResets();
  Ask(5, {{kNode, kOtherRole}});
  EndTurn();
  EXPECT_EQ(RejectionOf(5), "28P01");
  EXPECT_TRUE(closing_.empty());
}

TEST_F(PoolSharingTest, ARequestWhoseMappingWasDroppedIsNotServedByThePoolItSharedWithOthers) {
  settings_.max_pool_size = 1;
  OpenThree("alice");
  Hold(1);
  Ask(2, {{kNode, kThirdRole}}, seconds(60));
  EndTurn();
  mappings_.pop_back();
  book_->SetCatalog(nodes_, mappings_, now_);
  EndTurn();
  EXPECT_EQ(RejectionOf(2), "42704");
}

TEST_F(PoolSharingTest, ALoweredLimitIsReachedUnderLoad) {
  settings_.max_pool_size = 4;
  Open();
  for (SessionId session = 1; session <= 4; ++session) {
    Hold(session);
  }
  settings_.max_pool_size = 1;
  book_->Apply(settings_, now_);
  for (SessionId session = 5; session <= 8; ++session) {
    Ask(session, {{kNode, kRole}}, seconds(60));
  }
  EndTurn();
  for (SessionId session = 1; session <= 4; ++session) {
    GiveBack(session);
  }
  FinishResets();
  FinishCloses();
  EXPECT_EQ(Total(kNode), 1);
}

TEST_F(PoolSharingTest, ARefillOfAnotherPoolThatFailedTurnsNobodyElseAway) {
  settings_.max_pool_size = 10;
  settings_.min_pool_size = 1;
  Open();
  Slot* refill = nullptr;
  for (Slot* slot : connecting_) {
    if (slot->pool == PoolOf(kNode, kOtherRole)) {
      refill = slot;
    }
  }
  ASSERT_NE(refill, nullptr);
  Ask(1);
  EndTurn();
  std::erase(connecting_, refill);
  book_->OnConnectFailed(refill, Status("28P01", "wrong password"), FailureScope::kPool, now_);
  EndTurn();
  EXPECT_FALSE(PoolOf(kNode, kOtherRole)->hold_off.proven());
}

TEST_F(PoolSharingTest, AResetThatIsQuickerThanAConnectIsWaitedFor) {
  settings_.max_pool_size = 10;
  Open();
  Ask(1);
  EndTurn();
  Pass(milliseconds(20));
  ConnectAll();
  GiveBack(1);
  Ask(2);
  EndTurn();
  EXPECT_EQ(connects_, 1) << "no connection that would soon be too many";
  Pass(milliseconds(20));
  EXPECT_LE(book_->NextDeadline(), now_);
  EndTurn();
  EXPECT_EQ(connects_, 2) << "but no longer than a connect takes";
}

TEST_F(PoolSharingTest, AMappingThatChangedIsTriedAtOnce) {
  Open();
  Ask(1);
  EndTurn();
  FailConnects(Status("08001", "session is not read-only"));
  mappings_[0].options = {{"target_session_attrs", "any"}, {"user", "alice"}};
  book_->SetCatalog(nodes_, mappings_, now_);
  Ask(2);
  EndTurn();
  ConnectAll();
  EXPECT_EQ(held_[2].size(), 1u);
}

TEST_F(PoolSharingTest, ThePoolFarthestAboveItsMinimumGivesUp) {
  settings_.max_pool_size = 3;
  for (const auto& [more, fewer] :
       {std::pair(kOtherRole, kThirdRole), std::pair(kThirdRole, kOtherRole)}) {
    SCOPED_TRACE(more);
    OpenThree();
    for (const auto& [session, role] :
         {std::pair(1, more), std::pair(2, fewer), std::pair(3, more)}) {
      Ask(SessionId(session), {{kNode, role}});
      EndTurn();
      ConnectAll();
    }
    for (SessionId session : {1, 2, 3}) {
      GiveBack(session);
    }
    FinishResets();
    Ask(4);
    EndTurn();
    ASSERT_EQ(closing_.size(), 1u);
    EXPECT_EQ(closing_[0]->pool, PoolOf(kNode, more));
    closing_.clear();
  }
}

}  // namespace
}  // namespace polarx
