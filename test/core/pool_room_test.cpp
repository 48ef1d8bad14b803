// Descriptors of the process are a limit over all nodes: what is given up for whom, and who is
// turned away.
#include "pool_book_fixture.h"

namespace polarx {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class PoolRoomTest : public PoolBookTest {
 protected:
  // An idle slot each; what comes first is idle longest.
  void Idle(const std::vector<protocol::Wanted>& pools) {
    std::map<SessionId, SessionId> holders;
    for (const protocol::Wanted& wanted : pools) {
      Ask(++session_, {wanted});
      EndTurn();
      ConnectAll();
      holders[session_] = session_;
    }
    for (const auto& [session, same] : holders) {
      Pass(seconds(1));
      GiveBack(session);
      FinishResets();
    }
  }
  // The room is used up from now on.
  void Fill() { room_ = Total(kNode) + Total(kOtherNode); }
  void SetMinimum(NodeId node, int minimum) {
    nodes_[node - 1].min_pool_size = minimum;
    book_->SetCatalog(nodes_, mappings_, now_);
    EndTurn();
  }

  SessionId session_ = 100;
};

constexpr NodeId kOne = 1;
constexpr NodeId kTwo = 2;
constexpr RoleId kAlice = 10;
constexpr RoleId kBob = 11;

TEST_F(PoolRoomTest, WhatIsIdleLongestIsGivenUp) {
  struct Case {
    const char* what;
    std::vector<protocol::Wanted> idle;
    int minimum_one, minimum_two;
    protocol::Wanted asker;
    NodeId victim_node;
    RoleId victim_role;
  };
  const Case cases[] = {
      {"of another node", {{kOne, kAlice}}, 0, 0, {kTwo, kAlice}, kOne, kAlice},
      {"of another pool", {{kOne, kAlice}}, 0, 0, {kOne, kBob}, kOne, kAlice},
      {"the older of two", {{kOne, kAlice}, {kOne, kBob}}, 0, 0, {kTwo, kAlice}, kOne, kAlice},
      {"likewise", {{kOne, kBob}, {kOne, kAlice}}, 0, 0, {kTwo, kAlice}, kOne, kBob},
      {"of two nodes", {{kTwo, kBob}, {kOne, kAlice}}, 0, 0, {kTwo, kAlice}, kTwo, kBob},
      {"not a minimum", {{kOne, kAlice}, {kTwo, kBob}}, 1, 0, {kTwo, kAlice}, kTwo, kBob},
      {"above a minimum",
       {{kOne, kAlice}, {kTwo, kBob}, {kOne, kAlice}},
       1,
       1,
       {kTwo, kAlice},
       kOne,
       kAlice},
      {"a minimum if there is nothing else",
       {{kOne, kBob}, {kTwo, kBob}},
       1,
       1,
       {kTwo, kAlice},
       kOne,
       kBob},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.what);
    settings_.max_pool_size = 10;
    room_ = 1000;
    Open();
    Idle(c.idle);
    Fill();
    SetMinimum(kOne, c.minimum_one);
    SetMinimum(kTwo, c.minimum_two);
    Ask(1, {c.asker});
    EndTurn();
    ASSERT_EQ(closing_.size(), 1u);
    EXPECT_EQ(closing_[0]->pool, PoolOf(c.victim_node, c.victim_role));
    EXPECT_TRUE(connecting_.empty()) << "not before it is closed";
    FinishCloses();
    ConnectAll();
    EXPECT_EQ(held_[1].size(), 1u);
    EXPECT_EQ(closes_, 1) << "no more than was needed";
    EXPECT_EQ(Total(kNode) + Total(kOtherNode), room_);
    held_.clear();
    closes_ = 0;
  }
}

TEST_F(PoolRoomTest, OneForEachRequest) {
  settings_.max_pool_size = 10;
  Open();
  Idle({{kOne, kAlice}, {kOne, kAlice}, {kOne, kAlice}});
  Fill();
  Ask(1, {{kTwo, kAlice}});
  Ask(2, {{kTwo, kBob}});
  EndTurn();
  for (int round = 0; round < 3; ++round) {
    FinishCloses();
    ConnectAll();
  }
  EXPECT_EQ(held_[1].size() + held_[2].size(), 2u);
  EXPECT_EQ(closes_, 2);
}

TEST_F(PoolRoomTest, WhereAllAreLentOneIsToldAtOnce) {
  settings_.max_pool_size = 10;
  Open();
  Hold(1);
  Fill();
  Ask(2, {{kTwo, kAlice}});
  EndTurn();
  EXPECT_EQ(RejectionOf(2), "53000");
  EXPECT_EQ(rejected_[2].message(), "no descriptor for \"dn2\"");
  GiveBack(1);
  FinishResets();
  Ask(3, {{kTwo, kAlice}});
  EndTurn();
  FinishCloses();
  ConnectAll();
  EXPECT_EQ(held_[3].size(), 1u) << "and is not held off";
}

TEST_F(PoolRoomTest, WhoHasAQueueTimeoutWaitsForALeaseToComeBack) {
  settings_.max_pool_size = 10;
  Open();
  Hold(1);
  Fill();
  Ask(2, {{kTwo, kAlice}}, seconds(30));
  Ask(3, {{kTwo, kBob}}, seconds(2));
  EndTurn();
  Pass(seconds(3));
  EndTurn();
  EXPECT_EQ(RejectionOf(3), "53000") << "not 53300: the pool is not full";
  EXPECT_EQ(RejectionOf(2), "");
  GiveBack(1);
  FinishResets();
  FinishCloses();
  ConnectAll();
  EXPECT_EQ(held_[2].size(), 1u);
}

TEST_F(PoolRoomTest, AResetUnderWayIsWaitedForUntilTheAnswerIsDue) {
  settings_.max_pool_size = 10;
  for (const bool comes : {true, false}) {
    SCOPED_TRACE(comes);
    room_ = 1000;
    Open();
    Hold(1);
    Fill();
    GiveBack(1);
    Ask(2, {{kTwo, kAlice}});
    EndTurn();
    EXPECT_EQ(RejectionOf(2), "");
    ASSERT_EQ(resetting_.size(), 1u);
    if (comes) {
      FinishResets();
      FinishCloses();
      ConnectAll();
      EXPECT_EQ(held_[2].size(), 1u);
    } else {
      Pass(settings_.pooler_connect_timeout - seconds(1));
      EndTurn();
      EXPECT_EQ(RejectionOf(2), "");
      EXPECT_LE(book_->NextDeadline(), now_ + seconds(1));
      Pass(seconds(1));
      EndTurn();
      EXPECT_EQ(RejectionOf(2), "53000");
    }
    held_.clear();
    resetting_.clear();
  }
}

TEST_F(PoolRoomTest, NoMinimumTakesWhatARequestNeeds) {
  settings_.max_pool_size = 10;
  Open();
  Idle({{kOne, kAlice}, {kOne, kAlice}});
  Fill();
  SetMinimum(kOne, 2);
  SetMinimum(kTwo, 2);
  EXPECT_TRUE(connecting_.empty()) << "nothing is filled without room";
  Ask(1, {{kTwo, kAlice}});
  EndTurn();
  FinishCloses();
  ASSERT_EQ(connecting_.size(), 1u);
  EXPECT_EQ(connecting_[0]->pool, PoolOf(kTwo, kAlice));
  ConnectAll();
  EXPECT_EQ(held_[1].size(), 1u);
  EXPECT_EQ(closes_, 1);
}

TEST_F(PoolRoomTest, AConnectThatLackedADescriptorSaysNothingAboutTheNode) {
  Open();
  Ask(1);
  EndTurn();
  FailConnects(Status("08001", "refused"));
  EXPECT_TRUE(book_->directory().FindNode(kNode)->hold_off.active());
  Pass(seconds(10));
  Ask(2, {{kNode, kRole}});
  EndTurn();
  FailConnects(Status("53000", "Too many open files"));
  EXPECT_EQ(RejectionOf(2), "08001") << "what is known of the node";
  EXPECT_TRUE(book_->directory().FindNode(kNode)->hold_off.active()) << "it has not answered";
  Ask(3, {{kOtherNode, kRole}});
  EndTurn();
  FailConnects(Status("53000", "Too many open files"));
  EXPECT_EQ(RejectionOf(3), "53000");
  EXPECT_FALSE(book_->directory().FindNode(kOtherNode)->hold_off.active());
  Ask(4, {{kOtherNode, kOtherRole}});
  EndTurn();
  ConnectAll();
  EXPECT_EQ(held_[4].size(), 1u) << "its other pools are tried";
}

}  // namespace
}  // namespace polarx
