// When nodes are asked, how often and about whom; that nobody is stopped by one look alone, or for
// what has changed meanwhile.
#include "core/deadlock_watch.h"

#include <gtest/gtest.h>

#include <map>
#include <utility>

namespace polarx {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Duration kTimeout = seconds(1);
using Pairs = std::vector<std::pair<int, int>>;

// Session n has process 100 + n, lease n, and lease 50 + n on which it waits for nothing.
class DeadlockWatchTest : public ::testing::Test, public DeadlockDriver {
 protected:
  DeadlockWatchTest() { watch_.Apply(true, kTimeout); }

  std::vector<LongWait> Borrowed(Duration age, TimePoint /*now*/) override {
    EXPECT_EQ(age, kTimeout);
    return borrowed_;
  }
  Asked Ask(std::uint64_t round, const std::vector<LeaseId>& leases, TimePoint /*now*/) override {
    round_of_question_ = round;
    asked_leases_ = leases;
    ++questions_;
    return answer_to_ask_;
  }
  void Stop(const LongWait& victim, const WaitCircle& circle) override {
    EXPECT_EQ(circle.victim, victim.process);
    stopped_.push_back(victim.process);
  }
  void Tell(const LongWait& wait, const std::vector<WaitEdge>& edges, TimePoint /*now*/) override {
    EXPECT_FALSE(edges.empty());
    told_.push_back(wait.process);
  }

  LongWait Wait(SessionId session, std::uint32_t number = 1) {
    return {.session = session,
            .process = 100 + static_cast<int>(session),
            .number = number,
            .begun = session,
            .since = now_,
            .leases = {session}};
  }
  LongWait Borrower(SessionId session) {
    LongWait wait = Wait(session);
    wait.borrowed = true;
    return wait;
  }
  void Waits(SessionId session, std::uint32_t number = 1) { watch_.OnWait(Wait(session, number)); }
  void WaitsNoMore(SessionId session) { watch_.OnWait({.session = session, .leases = {}}); }
  void Turn(Duration later = Duration(0)) {
    now_ += later;
    watch_.Serve(now_);
  }
  // The node says that these sessions wait for these.
  void Answer(const Pairs& pairs) {
    std::vector<WaitEdge> edges;
    for (const auto& [waiter, holder] : pairs) {
      edges.push_back({.waiter = 100 + waiter,
                       .holder = holder == 0 ? 0 : 100 + holder,
                       .node = "dn1",
                       .remote_waiter = 200 + waiter,
                       .remote_holder = 250 + holder,
                       .waiting_lease = static_cast<LeaseId>(waiter),
                       .holding_lease = static_cast<LeaseId>(50 + holder)});
    }
    watch_.OnAnswer(round_of_question_, edges);
    Turn();
  }
  // The coordinator is asked about these sessions and says that these wait for these.
  void AnswerLocally(const std::vector<int>& asked, const Pairs& pairs) {
    std::vector<int> processes;
    for (const int session : asked) {
      processes.push_back(100 + session);
    }
    std::vector<int> to_ask;
    EXPECT_EQ(watch_.NextLocalWaits(&to_ask), !asked.empty());
    EXPECT_EQ(to_ask, processes);
    std::vector<WaitEdge> edges;
    for (const auto& [waiter, holder] : pairs) {
      edges.push_back({.waiter = 100 + waiter, .holder = 100 + holder, .node = {}});
    }
    watch_.AnswerLocalWaits(edges);
    Turn();
  }
  // Both looks of a round say the same.
  void Round(const Pairs& pairs, const std::vector<int>& asked = {}, const Pairs& local = {}) {
    for (int look = 0; look < 2; ++look) {
      Answer(pairs);
      AnswerLocally(asked, local);
    }
  }

  TimePoint now_ = TimePoint{} + seconds(1000);
  EventCounters counters_;
  DeadlockWatch watch_{this, &counters_};
  std::vector<LongWait> borrowed_;
  Asked answer_to_ask_{.nodes = 1, .all = true};
  std::uint64_t round_of_question_ = 0;
  std::vector<LeaseId> asked_leases_;
  int questions_ = 0;
  std::vector<int> stopped_, told_;
};

TEST_F(DeadlockWatchTest, NothingIsAskedWhileNobodyWaits) {
  for (int i = 0; i < 100; ++i) {
    Turn(seconds(1));
    EXPECT_EQ(watch_.NextDeadline(), kNever);
  }
  Waits(1);
  WaitsNoMore(1);
  Turn(seconds(1));
  Waits(1);
  watch_.Forget(1);
  Turn(seconds(1));
  EXPECT_EQ(questions_, 0);
  EXPECT_EQ(counters_.deadlock_checks, 0u);
}

TEST_F(DeadlockWatchTest, NothingIsAskedWhileItIsOff) {
  Waits(1);
  watch_.Apply(false, kTimeout);
  Turn();
  Waits(2);
  borrowed_ = {Borrower(3)};
  Turn(seconds(10));
  EXPECT_EQ(questions_, 0);
  EXPECT_EQ(watch_.NextDeadline(), kNever);
  watch_.Apply(true, kTimeout);
  borrowed_.clear();
  Turn(seconds(10));
  EXPECT_EQ(questions_, 0) << "who waited before is forgotten";
}

TEST_F(DeadlockWatchTest, AWaitIsLookedAtAtGrowingDistances) {
  Waits(1);
  std::vector<int> looks;  // in seconds
  const TimePoint begin = now_;
  while (now_ < begin + seconds(70)) {
    const int before = questions_;
    Turn();
    if (questions_ > before) {
      looks.push_back(static_cast<int>((now_ - begin) / seconds(1)));
      Answer({});
    }
    ASSERT_LT(now_, watch_.NextDeadline());
    now_ = watch_.NextDeadline();
  }
  EXPECT_EQ(looks, (std::vector<int>{0, 1, 3, 7, 15, 31, 47, 63}));
  EXPECT_EQ(counters_.deadlock_checks, looks.size());
}

TEST_F(DeadlockWatchTest, WhereANodeCannotBeAskedTheDistanceDoesNotGrow) {
  answer_to_ask_ = {.nodes = 0, .all = false};
  Waits(1);
  for (int look = 1; look < 10; ++look) {
    Turn();
    Turn();
    EXPECT_EQ(questions_, look);
    EXPECT_EQ(watch_.NextDeadline(), now_ + kTimeout);
    now_ += kTimeout;
  }
  EXPECT_EQ(counters_.deadlock_checks, 0u);
}

TEST_F(DeadlockWatchTest, ACircleIsBrokenAfterTheSecondLook) {
  Waits(1);
  Turn();
  Answer({{1, 2}});
  AnswerLocally({2}, {});
  EXPECT_EQ(questions_, 1) << "who waits for whom is no circle";
  EXPECT_EQ(told_, (std::vector<int>{101}));
  Waits(2);
  Turn(seconds(1));
  EXPECT_EQ(asked_leases_, (std::vector<LeaseId>{1, 2}));
  Answer({{1, 2}, {2, 1}});
  AnswerLocally({}, {});
  EXPECT_EQ(stopped_, std::vector<int>());
  EXPECT_EQ(questions_, 3);
  Answer({{1, 2}, {2, 1}});
  AnswerLocally({}, {});
  EXPECT_EQ(stopped_, (std::vector<int>{102})) << "the younger one";
  EXPECT_EQ(counters_.deadlocks, 1u);
  EXPECT_EQ(told_, (std::vector<int>{101, 102})) << "each is told once";
}

TEST_F(DeadlockWatchTest, WhatTheSecondLookDoesNotShowIsNoCircle) {
  Waits(1);
  Waits(2);
  Turn();
  Answer({{1, 2}, {2, 1}});
  AnswerLocally({}, {});
  Answer({{1, 2}});
  AnswerLocally({}, {});
  EXPECT_EQ(stopped_, std::vector<int>());
  Turn(kTimeout);
  Answer({{1, 2}, {2, 3}});
  AnswerLocally({3}, {{3, 1}});
  Answer({{1, 2}, {2, 1}});  // another circle
  AnswerLocally({}, {});
  EXPECT_EQ(stopped_, std::vector<int>());
}

TEST_F(DeadlockWatchTest, WhoWaitsForSomethingElseMeanwhileIsNotStopped) {
  Waits(1);
  Waits(2);
  Turn();
  Answer({{1, 2}, {2, 1}});
  AnswerLocally({}, {});
  Waits(2, 2);
  Answer({{1, 2}, {2, 1}});
  AnswerLocally({}, {});
  EXPECT_EQ(stopped_, std::vector<int>());
  Turn(kTimeout);
  Round({{1, 2}, {2, 1}});
  EXPECT_EQ(stopped_, (std::vector<int>{102})) << "the next round looks at that wait";
  WaitsNoMore(1);
  Waits(1, 2);
  Turn(kTimeout);
  Answer({{1, 2}, {2, 1}});
  AnswerLocally({}, {});
  WaitsNoMore(1);
  Answer({{1, 2}, {2, 1}});
  EXPECT_EQ(stopped_.size(), 1u);
}

TEST_F(DeadlockWatchTest, HalfOnTheCoordinator) {
  Waits(1);
  Turn();
  Round({{1, 2}}, {2}, {{2, 7}, {7, 1}});
  EXPECT_EQ(stopped_, (std::vector<int>{101})) << "the only one who waits for a node";
}

TEST_F(DeadlockWatchTest, AWaitForItself) {
  Waits(1);
  Turn();
  Round({{1, 1}});
  EXPECT_EQ(stopped_, (std::vector<int>{101}));
}

TEST_F(DeadlockWatchTest, WhoIsNoSessionIsToldAndInNoCircle) {
  Waits(1);
  Turn();
  Answer({{1, 0}});
  AnswerLocally({}, {});
  EXPECT_EQ(told_, (std::vector<int>{101}));
  EXPECT_EQ(stopped_, std::vector<int>());
}

TEST_F(DeadlockWatchTest, ASilentNodeIsLeftOut) {
  answer_to_ask_.nodes = 2;
  Waits(1);
  Waits(2);
  Turn();
  Answer({{1, 2}, {2, 1}});
  std::vector<int> processes;
  EXPECT_FALSE(watch_.NextLocalWaits(&processes)) << "the other node's answer is awaited";
  EXPECT_EQ(watch_.NextDeadline(), now_ + seconds(1));
  const std::uint64_t late = round_of_question_;
  Turn(seconds(1));
  AnswerLocally({}, {});
  watch_.OnAnswer(late, {});
  answer_to_ask_ = {.nodes = 1, .all = false};
  Answer({{1, 2}, {2, 1}});
  Turn(seconds(1));
  AnswerLocally({}, {});
  EXPECT_EQ(stopped_, (std::vector<int>{102}));
}

TEST_F(DeadlockWatchTest, RoundsTakeASmallPartOfTheTime) {
  Waits(1);
  Turn();
  now_ += milliseconds(20);
  Answer({});
  Waits(2);
  EXPECT_EQ(watch_.NextDeadline(), now_ + milliseconds(400));
  Turn(milliseconds(399));
  EXPECT_EQ(questions_, 1);
  Turn(milliseconds(1));
  EXPECT_EQ(questions_, 2);
}

TEST_F(DeadlockWatchTest, BorrowersAreAskedAfterLikeOthers) {
  borrowed_ = {Borrower(1)};
  Turn();
  EXPECT_EQ(asked_leases_, (std::vector<LeaseId>{1}));
  Answer({});
  Turn(kTimeout);
  EXPECT_EQ(questions_, 2);
  Answer({});
  Turn(kTimeout);
  EXPECT_EQ(questions_, 2) << "at growing distances";
  borrowed_ = {Borrower(1), Borrower(2)};
  Turn(kTimeout);
  EXPECT_EQ(asked_leases_, (std::vector<LeaseId>{1, 2}));
  Round({{1, 2}, {2, 1}}, {1, 2});
  EXPECT_EQ(stopped_, (std::vector<int>{102}));
  borrowed_.clear();
  Turn(kTimeout);
  EXPECT_EQ(watch_.NextDeadline(), kNever);
}

TEST_F(DeadlockWatchTest, ABorrowerThatWaitsOnTheCoordinatorCannotBeStopped) {
  borrowed_ = {Borrower(2)};
  Waits(1);
  Turn();
  Round({{1, 2}}, {2}, {{2, 1}});
  EXPECT_EQ(stopped_, (std::vector<int>{101}));
}

}  // namespace
}  // namespace polarx
