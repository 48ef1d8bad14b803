// Requests for several nodes: they come in order, hold nobody up by what they lack, and end.
#include "pool_book_fixture.h"

namespace polarx {
namespace {

using std::chrono::seconds;

constexpr NodeId kThirdNode = 3;

class PoolSeveralTest : public PoolBookTest {
 protected:
  // One connection to each of three nodes.
  void OpenThree() {
    settings_.max_pool_size = 1;
    Open();
    nodes_.push_back(NodeOf(kThirdNode));
    mappings_.push_back(MappingOf(kThirdNode, kRole, "alice"));
    mappings_.push_back(MappingOf(kThirdNode, kOtherRole, "bob"));
    book_->SetCatalog(nodes_, mappings_, now_);
    EndTurn();
  }
  void Take(SessionId session, NodeId node, RoleId role = kRole) {
    Ask(session, {{node, role}});
    EndTurn();
    ConnectAll();
    ASSERT_EQ(held_[session].size(), 1u);
  }
  static std::vector<protocol::Wanted> All(const std::vector<NodeId>& nodes, RoleId role = kRole) {
    std::vector<protocol::Wanted> wanted;
    for (const NodeId node : nodes) {
      wanted.push_back({node, role});
    }
    return wanted;
  }
  void Settle() {
    for (int round = 0; round < 8; ++round) {
      FinishResets();
      FinishCloses();
      ConnectAll();
    }
  }
};

TEST_F(PoolSeveralTest, OneThatLacksAThirdNodeHoldsNobodyUp) {
  OpenThree();
  Take(1, kThirdNode);
  Ask(2, All({kNode, kThirdNode}), seconds(600));
  EndTurn();
  ConnectAll();
  Ask(3, All({kNode, kOtherNode}));
  EndTurn();
  ConnectAll();
  EXPECT_EQ(held_[3].size(), 2u);
  GiveBack(3);
  GiveBack(1);
  Settle();
  EXPECT_EQ(held_[2].size(), 2u);
}

// Whoever gives back first: all of them end, and the older before the younger.
TEST_F(PoolSeveralTest, CrossingRequestsEnd) {
  const std::vector<NodeId> pairs[] = {
      {kNode, kOtherNode}, {kOtherNode, kThirdNode}, {kThirdNode, kNode}, {kOtherNode, kNode}};
  for (const RoleId second_role : {kRole, kOtherRole}) {
    for (const std::vector<NodeId>& one : pairs) {
      for (const std::vector<NodeId>& two : pairs) {
        for (int order = 0; order < 6; ++order) {
          for (const auto& [patience_one, patience_two] :
               {std::pair(600, 600), std::pair(600, 0), std::pair(0, 600), std::pair(0, 0)}) {
            SCOPED_TRACE(testing::Message()
                         << "nodes " << one[0] << "," << one[1] << " and " << two[0] << ","
                         << two[1] << ", order " << order << ", patience " << patience_one
                         << " and " << patience_two << ", role " << second_role);
            OpenThree();
            for (const NodeId node : {kNode, kOtherNode, kThirdNode}) {
              Take(node, node);
            }
            Ask(11, All(one), seconds(patience_one));
            Ask(12, All(two, second_role), seconds(patience_two));
            EndTurn();
            std::vector<SessionId> holders = {1, 2, 3};
            for (int i = 0; i < order; ++i) {
              std::next_permutation(holders.begin(), holders.end());
            }
            for (const SessionId session : holders) {
              GiveBack(session);
              Settle();
              for (const SessionId asker : {11, 12}) {
                GiveBack(asker);
                Settle();
              }
            }
            for (const auto& [session, patience] :
                 {std::pair(11, patience_one), std::pair(12, patience_two)}) {
              const bool granted =
                  std::count(grants_.begin(), grants_.end(), SessionId(session)) == 1;
              const bool rejected = rejected_.contains(SessionId(session));
              EXPECT_NE(granted, rejected) << session;
              EXPECT_EQ(rejected, patience == 0) << session;
            }
            EXPECT_EQ(book_->TicketOf(11), nullptr);
            EXPECT_EQ(book_->TicketOf(12), nullptr);
            grants_.clear();
            rejected_.clear();
            held_.clear();
          }
        }
      }
    }
  }
}

// Two pools of a full node.
TEST_F(PoolSeveralTest, WhatOneWaitsForInVainIsGivenUpForAnothersRequest) {
  for (const int patience : {0, 600}) {
    SCOPED_TRACE(patience);
    OpenThree();
    Take(1, kThirdNode);
    Ask(2, All({kNode, kThirdNode}), seconds(600));
    EndTurn();
    ConnectAll();
    Ask(3, {{kNode, kOtherRole}}, seconds(patience));
    EndTurn();
    Settle();
    EXPECT_EQ(held_[3].size(), 1u);
    GiveBack(3);
    GiveBack(1);
    Settle();
    EXPECT_EQ(held_[2].size(), 2u);
    held_.clear();
  }
}

}  // namespace
}  // namespace polarx
