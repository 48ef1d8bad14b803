// New connections are warmed up when nothing else is to be done, and users have them cold until
// then.
#include "pool_book_fixture.h"

namespace polarx {
namespace {

class PoolWarmingTest : public PoolBookTest {
 protected:
  // One pool with `minimum` connections to be opened.
  void OpenOne(int minimum) {
    settings_.warmup_query = "SELECT 1";
    settings_.min_pool_size = minimum;
    settings_.max_pool_size = 2 * minimum;
    book_ = std::make_unique<PoolBook>(this, this, this, settings_, 1, std::span<NodeCell>());
    nodes_ = {NodeOf(kNode)};
    mappings_ = {MappingOf(kNode, kRole, "alice")};
    SendCatalog();
  }
  // The pools of both nodes, with their minima opened.
  void OpenAll(const std::string& query, int minimum, int maximum) {
    settings_.warmup_query = query;
    settings_.min_pool_size = minimum;
    settings_.max_pool_size = maximum;
    Open();
    ConnectAll();
  }
  void Connect(std::size_t count) {
    ASSERT_GE(connecting_.size(), count);
    for (; count > 0; --count) {
      book_->OnConnected(connecting_.front(), now_);
      connecting_.erase(connecting_.begin());
      EndTurn();
    }
  }
  using PoolBookTest::Connect;
  std::vector<SlotId> FinishWarmups() {
    std::vector<SlotId> warmed;
    std::vector<Slot*> slots;
    slots.swap(warming_);
    for (Slot* slot : slots) {
      warmed.push_back(slot->id);
      book_->OnReady(slot, now_);
    }
    EndTurn();
    return warmed;
  }
  // Two warm connections have expired, others are being opened for them.
  void OpenReplacements() {
    OpenOne(2);
    Connect(2);
    (void)FinishWarmups();
    settings_.max_pool_size = 8;
    book_->Apply(settings_, now_);
    Pass(settings_.pool_session_max_lifetime * 98 / 100);
    EndTurn();
    ASSERT_EQ(connecting_.size(), 2u);
  }
  // All, in the order in which they were done.
  std::vector<SlotId> WarmAll() {
    std::vector<SlotId> warmed;
    while (!warming_.empty()) {
      EXPECT_LE(book_->directory().FindNode(kNode)->count(SlotState::kWarming), kParallelWarmups);
      for (SlotId id : FinishWarmups()) {
        warmed.push_back(id);
      }
    }
    return warmed;
  }
  void FailWarmups(const std::string& why, bool lost) {
    while (!warming_.empty()) {
      std::vector<Slot*> slots;
      slots.swap(warming_);
      for (Slot* slot : slots) {
        book_->OnWarmupFailed(slot, why, lost, now_);
      }
      FinishResets();
    }
  }
  std::uint64_t Expired() { return PoolOf(kNode, kRole)->counters.closed_lifetime; }
  int Idle() { return PoolOf(kNode, kRole)->count(SlotState::kIdle); }
};

TEST_F(PoolWarmingTest, WarmupsWaitUntilTheNodeOpensNothing) {
  OpenOne(5);
  ASSERT_EQ(connecting_.size(), 5u);
  Connect(4);
  EXPECT_EQ(Idle(), 4) << "they can be used meanwhile";
  EXPECT_TRUE(warming_.empty());
  Connect(1);
  EXPECT_EQ(warming_.size(), static_cast<std::size_t>(kParallelWarmups));
  EXPECT_EQ(Idle(), 5 - kParallelWarmups);
}

TEST_F(PoolWarmingTest, AllAreWarmedOnceOldestFirst) {
  OpenOne(5);
  Connect(5);
  EXPECT_EQ(WarmAll(), (std::vector<SlotId>{1, 2, 3, 4, 5}));
  EXPECT_EQ(Idle(), 5);
  EndTurn();
  EXPECT_TRUE(warming_.empty());
}

TEST_F(PoolWarmingTest, TheTurnGoesToAnotherPoolOfTheNode) {
  OpenAll("SELECT 1", 2, 8);
  const Pool* alice = PoolOf(kNode, kRole);
  const Pool* bob = PoolOf(kNode, kOtherRole);
  ASSERT_EQ(alice->count(SlotState::kWarming) + bob->count(SlotState::kWarming), kParallelWarmups);
  Slot* lost = warming_.back();
  warming_.pop_back();
  book_->OnBroken(lost, "gone", now_);
  EndTurn();
  FinishCloses();
  ConnectAll();
  (void)WarmAll();
  EXPECT_TRUE(alice->cold.empty() && bob->cold.empty());
  EXPECT_EQ(alice->count(SlotState::kIdle), 2);
  EXPECT_EQ(bob->count(SlotState::kIdle), 2);
  EXPECT_TRUE(warming_.empty());
}

TEST_F(PoolWarmingTest, OneThatWasLentIsNotCold) {
  OpenOne(3);
  Connect(2);
  Ask(1);
  EndTurn();
  ASSERT_EQ(held_[1].size(), 1u) << "it gets what is there";
  Connect(1);
  EXPECT_EQ(warming_.size(), 2u);
  GiveBack(1);
  FinishResets();
  (void)FinishWarmups();
  EXPECT_TRUE(warming_.empty());
  EXPECT_EQ(Idle(), 3);
}

TEST_F(PoolWarmingTest, WarmupsWaitWhileRequestsDo) {
  OpenOne(1);
  settings_.max_pool_size = 1;
  book_->Apply(settings_, now_);
  Connect(1);
  (void)FinishWarmups();
  Hold(1);
  Ask(2, {{kNode, kRole}}, std::chrono::seconds(60));
  EndTurn();
  settings_.max_pool_size = 2;
  book_->Apply(settings_, now_);
  EndTurn();
  Connect(1);
  EXPECT_EQ(held_[2].size(), 1u);
  EXPECT_TRUE(warming_.empty());
}

TEST_F(PoolWarmingTest, WithoutAQueryNothingIsWarmedNorEverWillBe) {
  OpenOne(3);
  Connect(2);
  settings_.warmup_query = "";
  book_->Apply(settings_, now_);
  Connect(1);
  settings_.warmup_query = "SELECT 1";
  book_->Apply(settings_, now_);
  EndTurn();
  EXPECT_TRUE(warming_.empty());
  EXPECT_EQ(Idle(), 3);
}

TEST_F(PoolWarmingTest, OneThatIsGoneHoldsNobodyUp) {
  OpenOne(3);
  Connect(2);
  EXPECT_EQ(book_->Clean(kNode, "", now_), 3);
  EndTurn();
  FinishCloses();
  ConnectAll();
  FinishCloses();  // of the one that was being opened
  ConnectAll();
  EXPECT_EQ(WarmAll(), (std::vector<SlotId>{4, 5, 6}));
  EXPECT_TRUE(PoolOf(kNode, kRole)->cold.empty());
}

TEST_F(PoolWarmingTest, AConnectionThatIsBeingWarmedIsWaitedForAMoment) {
  OpenAll("SELECT 1", 1, 4);
  ASSERT_EQ(warming_.size(), 4u) << "one a pool";
  Ask(1);
  Ask(2);
  EndTurn();
  EXPECT_EQ(connecting_.size(), 1u) << "the one that is being warmed is for the first";
  ConnectAll();
  EXPECT_EQ(grants_, std::vector<SessionId>{1}) << "whichever is free first";
  EXPECT_EQ(warming_.size(), 4u);
  FinishWarmups();
  EXPECT_EQ(grants_, (std::vector<SessionId>{1, 2}));
}

TEST_F(PoolWarmingTest, AStuckWarmupHoldsNoRequestUp) {
  OpenAll("SELECT pg_sleep(1000)", 1, 4);
  const int before = connects_;
  Ask(1);
  EndTurn();
  EXPECT_EQ(connects_, before) << "it should be over in a moment";
  Pass(std::chrono::seconds(1));
  EndTurn();
  ConnectAll();
  EXPECT_EQ(held_[1].size(), 1u);
}

TEST_F(PoolWarmingTest, WhatIsReplacedStaysUntilItsReplacementIsWarmedUp) {
  for (const bool fails : {false, true}) {
    OpenReplacements();
    Connect(2);
    ASSERT_EQ(warming_.size(), 2u);
    EXPECT_EQ(Idle(), 2) << "the old ones serve meanwhile";
    EXPECT_EQ(Expired(), 0u);
    if (fails) {
      FailWarmups("no such column", false);
    } else {
      (void)FinishWarmups();
    }
    EXPECT_EQ(Expired(), 2u);
    EXPECT_EQ(Idle(), 2);
  }
}

TEST_F(PoolWarmingTest, WithoutAWarmupWhatIsReplacedGoesAtOnce) {
  OpenReplacements();
  settings_.warmup_query = "";
  book_->Apply(settings_, now_);
  Connect(2);
  EXPECT_EQ(Expired(), 2u);
  EXPECT_EQ(Idle(), 2);
}

TEST_F(PoolWarmingTest, BesideAReplacementThatIsLentColdTheOldOnesServe) {
  OpenReplacements();
  Connect(1);  // the other one keeps warm-ups waiting
  for (const SessionId session : {1, 2, 3}) {
    Ask(session);
    EndTurn();
    EXPECT_EQ(held_[session].size(), 1u);
  }
  EXPECT_EQ(Expired(), 0u);
}

TEST_F(PoolWarmingTest, AFailedWarmupIsSaidOnceAndTheConnectionServes) {
  OpenAll("SELECT nonsense", 2, 8);
  ASSERT_EQ(warming_.size(), 4u) << "two a node";
  FailWarmups("no such column", false);
  EXPECT_EQ(PoolOf(kNode, kRole)->count(SlotState::kIdle), 2);
  const auto said = [this] {
    return std::count_if(logs_.begin(), logs_.end(), [](const std::string& line) {
      return line.find("on datanode \"dn1\" as remote user \"alice\": no such column") !=
             std::string::npos;
    });
  };
  EXPECT_EQ(said(), 1);
  settings_.warmup_query = "SELECT other_nonsense";
  book_->Apply(settings_, now_);
  book_->Clean(kNode, "", now_);
  EndTurn();
  FinishCloses();
  ConnectAll();
  ASSERT_FALSE(warming_.empty());
  FailWarmups("no such column", false);
  EXPECT_EQ(said(), 2) << "once for each change";
}

TEST_F(PoolWarmingTest, AWarmupThatCostsTheConnectionIsNotTriedAgainAtOnce) {
  OpenAll("SELECT pg_sleep(1000)", 1, 8);
  ASSERT_FALSE(warming_.empty());
  FailWarmups("time is over", true);
  FinishCloses();
  ConnectAll();
  EXPECT_TRUE(warming_.empty());
  EXPECT_EQ(PoolOf(kNode, kRole)->count(SlotState::kIdle), 1);
}

}  // namespace
}  // namespace polarx
