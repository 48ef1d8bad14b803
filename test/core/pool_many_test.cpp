// Pools of hundreds and thousands of connections: no turn goes through all of them.
#include "pool_book_fixture.h"

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
