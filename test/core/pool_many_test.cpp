// Pools of hundreds and thousands of connections: no turn goes through all of them.
#include "pool_cells_fixture.h"

namespace polarx {
namespace {

using std::chrono::seconds;

class PoolManyTest : public PoolBookTest {
 protected:
  void OpenMany(int slots) {
    settings_.min_pool_size = slots;
    settings_.max_pool_size = room_ = 4 * slots;
    OpenOne();
    ASSERT_EQ(idle(), slots);
  }
  Pool* pool() { return PoolOf(kNode, kRole); }
  int idle() { return pool()->count(SlotState::kIdle); }
  // Turns that timers make until then.
  int TurnsUntil(TimePoint end) {
    int turns = 0;
    for (; book_->NextDeadline() <= end; ++turns) {
      PassUntilDue();
      FailConnects(Status("08001", "refused"));
    }
    now_ = end;
    return turns;
  }
};

TEST_F(PoolManyTest, AHandOutTakesNoLongerWhileOneOfManyExpires) {
  Duration shortest[2];
  for (const int index : {0, 1}) {
    OpenMany(index == 0 ? 20 : 4000);
    PassUntilDue();
    ASSERT_EQ(pool()->expiring(), 1);
    shortest[index] = std::chrono::hours(1);
    for (int turn = 0; turn < 1000; ++turn) {
      const TimePoint start = Now();
      Ask(1);
      EndTurn();
      GiveBack(1);
      FinishResets();
      shortest[index] = std::min<Duration>(shortest[index], Now() - start);
    }
    ASSERT_EQ(pool()->expiring(), 1) << "its connect hangs";
    connecting_.clear();
  }
  EXPECT_LT(shortest[1], 3 * shortest[0]);
}

class ManyLeasesTest : public PoolCellsTest {
 protected:
  // So many sessions with a lease each, and a descriptor for one connection more.
  void LeaseMany(int leases, int min_free) {
    session_cells_.clear();
    held_.clear();
    settings_.max_pool_size = 2 * leases;
    settings_.min_free_size = min_free;
    settings_.pool_session_max_lifetime = seconds(1000000);
    room_ = leases + 1;
    Open();
    for (int session = 1; session <= leases; ++session) {
      HoldToPark(static_cast<SessionId>(session));
    }
    Pass(seconds(1));
    EndTurn();
    ASSERT_EQ(PoolOf(kNode, kRole)->count(SlotState::kLeased), leases);
  }
};

TEST_F(ManyLeasesTest, AHandOutTakesNoLongerWhereTheReserveLacksDescriptors) {
  Duration shortest[2];
  for (const int index : {0, 1}) {
    ASSERT_NO_FATAL_FAILURE(LeaseMany(index == 0 ? 20 : 4000, 5));
    shortest[index] = std::chrono::hours(1);
    for (int turn = 0; turn < 200; ++turn) {
      const TimePoint start = Now();
      GiveBack(1);
      FinishResets();
      AskWithCells(1);
      shortest[index] = std::min<Duration>(shortest[index], Now() - start);
      ASSERT_EQ(held_[1].size(), 1u);
    }
  }
  EXPECT_LT(shortest[1], 5 * shortest[0]);
}

TEST_F(ManyLeasesTest, ARejectionTakesNoLongerWhereManyAreLeased) {
  constexpr SessionId kAsking = 1000;
  Duration shortest[2];
  for (const int index : {0, 1}) {
    const int leases = index == 0 ? 20 : 4000;
    ASSERT_NO_FATAL_FAILURE(LeaseMany(leases, 0));
    settings_.max_pool_size = leases;
    book_->Apply(settings_, now_);
    EndTurn();
    shortest[index] = std::chrono::hours(1);
    for (int turn = 0; turn < 5; ++turn) {
      rejected_.clear();
      for (SessionId session = 1; session <= kAsking; ++session) {
        Ask(10000 + session);
      }
      const TimePoint start = Now();
      EndTurn();
      shortest[index] = std::min<Duration>(shortest[index], Now() - start);
      ASSERT_EQ(rejected_.size(), kAsking);
    }
  }
  EXPECT_LT(shortest[1], 3 * shortest[0]);
}

TEST_F(PoolManyTest, MemoryChecksThatAreDueDoNotKeepThePoolerBusyWhileOneHangs) {
  settings_.pool_session_context_check_gap = seconds(20);
  OpenMany(500);
  TurnsUntil(now_ + seconds(20));
  ASSERT_EQ(measuring_.size(), 1u);
  const int turns = TurnsUntil(now_ + seconds(1));
  EXPECT_LE(turns, 60);
  EXPECT_GE(turns, 40);
  int measured = 0;
  for (const TimePoint end = now_ + seconds(11); now_ < end; ++measured) {
    FinishMeasures(1);
    while (measuring_.empty()) {
      ASSERT_NO_FATAL_FAILURE(PassUntilDue());
    }
  }
  EXPECT_GE(measured, 500) << "none is forgotten";
}

TEST_F(PoolManyTest, ReplacementsThatAreDueDoNotKeepThePoolerBusyWhileTheNodeIsDown) {
  OpenMany(500);
  const TimePoint opened = now_;
  const Duration lifetime = settings_.pool_session_max_lifetime;
  TurnsUntil(opened + lifetime * 98 / 100);
  ASSERT_EQ(idle(), 500) << "all are due";
  EXPECT_LE(TurnsUntil(now_ + seconds(1)), 130);
  TurnsUntil(opened + lifetime);
  EXPECT_EQ(idle(), 0) << "none is kept beyond its end";
}

}  // namespace
}  // namespace polarx
