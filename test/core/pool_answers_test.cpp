// Until when requests wait, and for what: everybody hears the true reason in time, and what is
// hopeless is told at once.
#include "pool_cells_fixture.h"

namespace polarx {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

const Status kSilent("08001", "could not connect to datanode \"dn1\": no answer within 3 s");

class PoolAnswersTest : public PoolCellsTest {
 protected:
  PoolAnswersTest() {
    settings_.pooler_connect_timeout = seconds(3);
    settings_.pooler_dn_set_timeout = seconds(10);
  }
  // The book is looked at whenever it wants to be.
  void PassTo(TimePoint until) {
    while (book_->NextDeadline() <= until) {
      PassUntilDue();
    }
    now_ = until;
    EndTurn();
  }
  void FailFirst(const Status& status = kSilent) {
    Slot* slot = connecting_.front();
    connecting_.erase(connecting_.begin());
    book_->OnConnectFailed(slot, status, ScopeOfFailure(status.sqlstate()), now_);
    EndTurn();
  }
  bool IsAnswered(SessionId session) {
    return rejected_.contains(session) || !held_[session].empty();
  }
};

TEST_F(PoolAnswersTest, AnothersConnectToASilentNodeIsNotWaitedForBesides) {
  settings_.min_pool_size = 1;
  settings_.max_pool_size = 10;
  Open();
  const TimePoint began = now_;
  const std::size_t refills = connecting_.size();
  ASSERT_GT(refills, 0u);
  PassTo(began + milliseconds(50));
  Ask(1);
  EndTurn();
  PassTo(began + seconds(3));
  for (std::size_t i = 0; i < refills; ++i) {
    FailFirst();
  }
  EXPECT_FALSE(connecting_.empty()) << "an attempt of its own";
  PassTo(began + milliseconds(3049));
  EXPECT_FALSE(IsAnswered(1));
  PassTo(began + milliseconds(3050));
  EXPECT_EQ(RejectionOf(1), "08001");
  EXPECT_FALSE(connecting_.empty()) << "which goes on";
  ConnectAll();
  EXPECT_EQ(PoolOf(kNode, kRole)->count(SlotState::kIdle), 1) << "for who comes next";
}

TEST_F(PoolAnswersTest, WhoWasAnsweredBeforeItsAttemptFailedHasHadOneAllTheSame) {
  settings_.max_pool_size = 10;
  Open();
  Ask(1);
  EndTurn();
  PassTo(now_ + seconds(3));
  EXPECT_FALSE(IsAnswered(1)) << "the attempt itself tells why, any moment now";
  PassTo(now_ + RequestQueue::kAttemptEnds);
  EXPECT_EQ(RejectionOf(1), "08001");
  EXPECT_NE(rejected_[1].message().find("pooler.pooler_connect_timeout (3 s)"), std::string::npos);
  FailConnects(kSilent);
  Ask(2);
  EndTurn();
  EXPECT_EQ(RejectionOf(2), "08001") << "at once";
}

TEST_F(PoolAnswersTest, TimeOutsOfOneSlotDoNotAddUp) {
  settings_.max_pool_size = 1;
  Open();
  Hold(1);
  GiveBack(1);  // and the reset is not answered
  const TimePoint asked = now_;
  Ask(2);
  Ask(3, {{kNode, kRole}}, seconds(15));
  EndTurn();
  PassTo(asked + milliseconds(9999));
  EXPECT_FALSE(IsAnswered(2));
  PassTo(asked + seconds(10));
  EXPECT_EQ(RejectionOf(2), "53300");
  EXPECT_NE(rejected_[2].detail().find("1 are being opened, reset or closed"), std::string::npos)
      << rejected_[2].detail();
  book_->OnBroken(resetting_.front(), "no answer", now_);
  resetting_.clear();
  EndTurn();
  PassTo(asked + seconds(15));
  EXPECT_EQ(RejectionOf(3), "53300");
}

TEST_F(PoolAnswersTest, WhoIsBehindAllThatComesBackIsToldAtOnce) {
  settings_.max_pool_size = 3;
  Open();
  for (SessionId session : {1, 2, 3}) {
    Hold(session);
  }
  GiveBack(1);
  GiveBack(2);
  for (SessionId session = 10; session < 60; ++session) {
    Ask(session, {{kNode, session % 2 == 0 ? kRole : kOtherRole}});
  }
  EndTurn();
  EXPECT_EQ(rejected_.size(), 48u);
  EXPECT_FALSE(rejected_.contains(10) || rejected_.contains(11)) << "the two oldest wait";
  EXPECT_EQ(RejectionOf(59), "53300");
  EXPECT_NE(rejected_[59].detail().find("number 50 of 50"), std::string::npos)
      << rejected_[59].detail();
  Ask(60, {{kNode, kRole}}, seconds(60));
  EndTurn();
  EXPECT_FALSE(IsAnswered(60)) << "it has time";
}

TEST_F(PoolAnswersTest, AResetUnderWayKeepsNobodyElseWaitingForANodeThatIsDown) {
  settings_.max_pool_size = 10;
  Open();
  Hold(1);
  GiveBack(1);
  Pass(seconds(2));
  for (SessionId session : {2, 3, 4}) {
    Ask(session);
  }
  EndTurn();
  Pass(seconds(1));
  FailConnects(kSilent);
  EXPECT_FALSE(IsAnswered(2)) << "the reset may come to its end";
  EXPECT_EQ(RejectionOf(3), "08001");
  EXPECT_EQ(RejectionOf(4), "08001");
  const TimePoint asked = now_ - seconds(1);
  PassTo(asked + seconds(10));
  EXPECT_EQ(RejectionOf(2), "08001");
}

TEST_F(PoolAnswersTest, WhoStandsFarBehindInTheQueueOfConnectsIsToldInTime) {
  settings_.pooler_connect_timeout = seconds(1);
  settings_.pooler_dn_set_timeout = seconds(1);
  settings_.max_pool_size = 100;
  Open();
  const TimePoint asked = now_;
  for (SessionId session = 1; session <= 40; ++session) {
    Ask(session);
  }
  EndTurn();
  PassTo(asked + milliseconds(900));
  const std::vector<Slot*> opened = std::exchange(connecting_, {});
  for (Slot* slot : opened) {
    book_->OnConnected(slot, now_);
    EndTurn();
  }
  EXPECT_EQ(grants_.size(), 8u);
  PassTo(asked + seconds(1));
  EXPECT_EQ(rejected_.size(), 32u);
  EXPECT_EQ(RejectionOf(40), "08001");
  EXPECT_NE(rejected_[9].message().find("(waited for 1.0 s)"), std::string::npos);
  EXPECT_NE(rejected_[9].detail().find("8 connections to it are being opened"), std::string::npos)
      << rejected_[9].detail();
  EXPECT_NE(rejected_[9].detail().find("number 1 of 32"), std::string::npos);
  EXPECT_EQ(connecting_.size(), 8u) << "they are not given up";
}

TEST_F(PoolAnswersTest, ANodeThatIsDownIsToldToWhoHasTimeToo) {
  settings_.max_pool_size = 300;
  Open();
  Hold(1);
  Ask(2, {{kNode, kRole}}, seconds(60));
  EndTurn();
  Pass(milliseconds(1));
  FailConnects(Status("08001", "refused"));
  EXPECT_EQ(RejectionOf(2), "08001");
}

TEST_F(PoolAnswersTest, AnAttemptThatTimesOutWithItsRequestTellsTheReason) {
  settings_.max_pool_size = 10;
  Open();
  Ask(1);
  EndTurn();
  PassTo(now_ + seconds(3));
  Pass(milliseconds(20));
  FailConnects(kSilent);
  EXPECT_EQ(rejected_[1].message(), kSilent.message());
}

TEST_F(PoolAnswersTest, WhoHasTimeWaitsForSlotsThatComeBackFromANodeWithoutRoom) {
  settings_.max_pool_size = 300;
  Open();
  Hold(1);
  for (SessionId session : {2, 3, 4}) {
    Ask(session, {{kNode, kRole}}, seconds(60));
  }
  EndTurn();
  GiveBack(1);
  Pass(milliseconds(1));
  FailConnects(Status("53300", "sorry, too many clients already"));
  EXPECT_TRUE(rejected_.empty()) << "nothing is lent, but one is reset";
  FinishResets();
  EXPECT_EQ(held_[2].size(), 1u);
  EXPECT_TRUE(rejected_.empty());
}

TEST_F(PoolAnswersTest, ANodeWithoutRoomIsWaitedForWhileLeasesAreOut) {
  settings_.max_pool_size = 300;
  Open();
  Hold(1);
  Ask(2, {{kNode, kRole}}, seconds(60));
  EndTurn();
  Pass(milliseconds(1));
  FailConnects(Status("53300", "sorry, too many clients already"));
  EXPECT_FALSE(IsAnswered(2));
  GiveBack(1);
  FinishResets();
  EXPECT_EQ(held_[2].size(), 1u);
}

TEST_F(PoolAnswersTest, QueueTimeoutOnASilentNodeTellsThatItIsStillConnectedTo) {
  settings_.max_pool_size = 300;
  Open();
  Ask(1, {{kNode, kRole}}, milliseconds(500));
  EndTurn();
  ASSERT_EQ(connecting_.size(), 1u);
  Pass(milliseconds(500));
  EndTurn();
  EXPECT_EQ(RejectionOf(1), "08001");
  EXPECT_EQ(
      rejected_[1].message(),
      "could not connect to datanode \"dn1\": no connection was open in time (waited for 0.5 s)");
  EXPECT_NE(rejected_[1].detail().find("1 connection to it is being opened"), std::string::npos);
  EXPECT_NE(rejected_[1].hint().find("pooler.queue_timeout"), std::string::npos);
  EXPECT_EQ(rejected_[1].hint().find("max_pool_size"), std::string::npos);
}

TEST_F(PoolAnswersTest, OwnLackOfDescriptorsIsToldAsThat) {
  settings_.min_pool_size = 1;
  settings_.max_pool_size = 10;
  Open();
  FailConnects(Status("08001", "refused an hour ago"));
  Pass(milliseconds(1));
  Ask(1);
  EndTurn();
  ASSERT_EQ(connecting_.size(), 1u);
  Pass(milliseconds(1));
  FailConnects(Status(sqlstate::kOutOfDescriptors, "too many open files"));
  EXPECT_EQ(RejectionOf(1), sqlstate::kOutOfDescriptors);
}

// A younger request for one node comes each time before a slot of it is ready.
TEST_F(PoolAnswersTest, RequestsForOneNodeDoNotOvertakeOneForSeveralForEver) {
  for (const Duration patience : {Duration(seconds(9)), Duration(seconds(100000))}) {
    constexpr SessionId kSeveral = 900000000;
    settings_.max_pool_size = 3;
    settings_.pool_session_max_lifetime = seconds(1000000);
    Open();
    std::map<NodeId, std::vector<SessionId>> holders;
    std::map<NodeId, std::vector<Slot*>> resets;
    SessionId next = 1;
    const auto give_back = [&](NodeId node) {
      const SessionId holder = holders[node].front();
      holders[node].erase(holders[node].begin());
      GiveBack(holder);
      for (Slot* slot : std::exchange(resetting_, {})) {
        resets[node].push_back(slot);
      }
    };
    for (const NodeId node : {kNode, kOtherNode}) {
      for (int i = 0; i < 3; ++i) {
        Ask(next, {{node, kRole}}, seconds(60));
        EndTurn();
        ConnectAll();
        ASSERT_EQ(held_[next].size(), 1u);
        holders[node].push_back(next++);
      }
      give_back(node);
    }
    Ask(kSeveral, {{kNode, kRole}, {kOtherNode, kRole}}, patience);
    EndTurn();
    const TimePoint asked = now_;
    std::size_t most_behind = 0;
    for (int cycle = 0; held_[kSeveral].empty() && now_ < asked + seconds(5); ++cycle) {
      const NodeId node = cycle % 2 == 0 ? kNode : kOtherNode;
      Ask(next, {{node, kRole}}, seconds(60));
      EndTurn();
      if (!holders[node].empty()) {
        give_back(node);
      }
      Pass(milliseconds(1));
      if (!resets[node].empty()) {
        Slot* done = resets[node].front();
        resets[node].erase(resets[node].begin());
        book_->OnReady(done, now_);
        EndTurn();
      }
      holders[node].clear();
      for (const auto& [session, leases] : held_) {
        if (!leases.empty() && session != kSeveral &&
            book_->FindLease(leases[0])->pool->node->definition.id == node) {
          holders[node].push_back(session);
        }
      }
      most_behind = std::max(most_behind, PoolOf(node, kRole)->queue.size());
      ++next;
      Pass(milliseconds(9));
    }
    EXPECT_EQ(held_[kSeveral].size(), 2u);
    EXPECT_LT(now_ - asked, seconds(1));
    EXPECT_LE(most_behind, 4u) << "one slot is kept from them, not the node";
    held_.clear();
    rejected_.clear();
    resetting_.clear();
  }
}

// The datanode lets sessions in and hangs up at once.
TEST_F(PoolAnswersTest, ConnectionsThatAreDeadOnArrivalAreNotOpenedOverAndOver) {
  settings_.max_pool_size = 10;
  Open();
  Ask(1);
  EndTurn();
  int connects = 0;
  for (; !connecting_.empty() && connects < 1000; ++connects) {
    Slot* slot = connecting_.front();
    connecting_.erase(connecting_.begin());
    dead_.insert(slot->id);
    book_->OnConnected(slot, now_);
    EndTurn();
    FinishCloses();
  }
  EXPECT_EQ(connects, 1);
  EXPECT_EQ(RejectionOf(1), "08001");
  EXPECT_TRUE(PoolOf(kNode, kRole)->hold_off.active());
  EXPECT_EQ(PoolOf(kNode, kRole)->counters.connect_failures, 1u);
}

TEST_F(PoolAnswersTest, AReserveThatIsHungUpOnIsNotRefilledAtOnce) {
  settings_.min_pool_size = 1;
  settings_.max_pool_size = 10;
  OpenOne();
  Slot* slot = &PoolOf(kNode, kRole)->list(SlotState::kIdle).front();
  int connects = 0;
  for (; connects < 1000; ++connects) {
    book_->OnBroken(slot, "terminated", now_);
    EndTurn();
    FinishCloses();
    if (connecting_.empty()) {
      break;
    }
    slot = connecting_.front();
    connecting_.erase(connecting_.begin());
    book_->OnConnected(slot, now_);
    EndTurn();
  }
  EXPECT_EQ(connects, 0);
  EXPECT_EQ(logs_.size(), 1u);
}

}  // namespace
}  // namespace polarx
