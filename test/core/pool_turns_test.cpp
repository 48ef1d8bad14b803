// Rare meetings of requests with checks, probes, resets and ends of life: nobody waits for what
// does not come.
#include "pool_book_fixture.h"

namespace polarx {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class PoolTurnsTest : public PoolBookTest {
 protected:
  void PassWithTimers(Duration time) {
    const TimePoint end = now_ + time;
    while (book_->NextDeadline() <= end) {
      PassUntilDue();
    }
    now_ = end;
  }
};

TEST_F(PoolTurnsTest, ACheckThatTakesLongIsNotWaitedForByARequestForSeveralNodes) {
  settings_.pool_session_context_check_gap = seconds(20);
  Open();
  for (SessionId session : {1, 2}) {
    Ask(session, {{kOtherNode, kRole}});
    EndTurn();
    ConnectAll();
  }
  Ask(3, {{kNode, kRole}, {kOtherNode, kRole}}, seconds(600));
  EndTurn();
  ConnectAll();
  PassWithTimers(seconds(20));
  ASSERT_EQ(measuring_.size(), 1u) << "what was idle for it";
  PassWithTimers(seconds(2));
  EXPECT_EQ(connecting_.size(), 1u);
}

TEST_F(PoolTurnsTest, AProbeOfOnePoolIsNotOneConnectTooMany) {
  settings_.max_pool_size = 40;
  Open();
  Ask(1, {{kNode, kOtherRole}});
  EndTurn();
  FailConnects(Status("28P01", "wrong password"));
  for (SessionId session = 10; session < 10 + kParallelConnects; ++session) {
    Ask(session);
  }
  EndTurn();
  ASSERT_EQ(connecting_.size(), static_cast<std::size_t>(kParallelConnects));
  Pass(seconds(1));
  Ask(2, {{kNode, kOtherRole}});
  EndTurn();
  EXPECT_EQ(connecting_.size(), static_cast<std::size_t>(kParallelConnects));
  EXPECT_EQ(RejectionOf(2), "") << "it gets its attempt";
  ConnectAll();
  EXPECT_EQ(held_[2].size(), 1u);
}

TEST_F(PoolTurnsTest, WhatIsGivenUpForAProbeServesIt) {
  Open();
  Ask(1, {{kNode, kOtherRole}});
  EndTurn();
  FailConnects(Status("28P01", "wrong password"));
  for (SessionId session : {3, 4}) {
    Hold(session);
  }
  GiveBack(3);
  FinishResets();
  Pass(seconds(1));
  Ask(5, {{kNode, kOtherRole}});
  EndTurn();
  EXPECT_EQ(closing_.size(), 1u);
  EXPECT_EQ(RejectionOf(5), "");
  FinishCloses();
  ConnectAll();
  EXPECT_EQ(held_[5].size(), 1u);
}

TEST_F(PoolTurnsTest, AResetIsWaitedForFromItsOwnBeginningOn) {
  settings_.max_pool_size = 10;
  Open();
  Ask(1);
  EndTurn();
  Pass(milliseconds(20));
  ConnectAll();
  GiveBack(1);
  Pass(milliseconds(15));
  Ask(2);
  EndTurn();
  EXPECT_EQ(connects_, 1);
  PassWithTimers(milliseconds(5));
  EXPECT_EQ(connects_, 2) << "no longer than a connect takes";
}

TEST_F(PoolTurnsTest, ALongerLifetimeEndsExpiry) {
  settings_.min_pool_size = 1;
  settings_.max_pool_size = 8;
  Open();
  ConnectAll();
  Pool* pool = PoolOf(kNode, kRole);
  while (pool->expiring() == 0) {
    ASSERT_NO_FATAL_FAILURE(PassUntilDue());
  }
  FailConnects(Status("08001", "refused"));
  settings_.min_pool_size = 0;
  settings_.pool_session_max_lifetime = seconds(1000000);
  book_->Apply(settings_, now_);
  EndTurn();
  Pass(settings_.pool_conn_keepalive);
  book_->Maintain(now_);
  EndTurn();
  EXPECT_EQ(pool->count(SlotState::kIdle), 0) << "what nobody needs is closed";
}

TEST_F(PoolTurnsTest, AnIdleSlotIsNotKeptOnAFullNodeForARequestThatLacksAnotherNode) {
  settings_.max_pool_size = 1;
  Open();
  Ask(1, {{kOtherNode, kRole}});
  EndTurn();
  ConnectAll();
  Ask(2, {{kNode, kRole}, {kOtherNode, kRole}}, seconds(600));
  EndTurn();
  ConnectAll();
  Ask(3, {{kNode, kOtherRole}});  // no queue_timeout
  EndTurn();
  FinishCloses();
  ConnectAll();
  EXPECT_TRUE(held_[3].size() == 1 || RejectionOf(3) == "53300") << "it hangs";
}

TEST_F(PoolTurnsTest, AnAttemptFromBeforeTheKnownFailureChangesNothing) {
  settings_.max_pool_size = 8;
  for (const char* state : {"08001", "28P01"}) {
    SCOPED_TRACE(state);
    Open();
    Ask(1);
    Ask(2);
    EndTurn();
    ASSERT_EQ(connecting_.size(), 2u);
    const Pool* pool = PoolOf(kNode, kRole);
    const auto fail = [&](const char* why) {
      Slot* slot = connecting_.front();
      connecting_.erase(connecting_.begin());
      book_->OnConnectFailed(slot, Status(state, why), ScopeOfFailure(state), now_);
      EndTurn();
    };
    fail("first");
    ASSERT_NE(pool->ActiveHoldOff(), nullptr);
    const HoldOff& hold_off = *pool->ActiveHoldOff();
    const TimePoint retry = hold_off.retry_at();
    Pass(milliseconds(1));
    fail("second");
    EXPECT_EQ(hold_off.retry_at(), retry);
    EXPECT_EQ(hold_off.status().message(), "first");
    EXPECT_TRUE(connecting_.empty());
  }
}

}  // namespace
}  // namespace polarx
