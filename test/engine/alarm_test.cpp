// The alarm goes off when it was told to, and resets that wait for others go out by it.
#include "polarx_pooler/engine/alarm.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <chrono>

#include "pooler_fixture.h"

namespace polarx {
namespace {

using std::chrono::microseconds;

bool GoesOff(const Alarm& alarm, int limit_ms) {
  pollfd wait{alarm.fd(), POLLIN, 0};
  return poll(&wait, 1, limit_ms) == 1;
}

TEST(AlarmTest, GoesOffAtItsTimeAndNotBefore) {
  Alarm alarm;
  ASSERT_GE(alarm.fd(), 0);
  EXPECT_FALSE(GoesOff(alarm, 0));
  for (int i = 1; i <= 5; ++i) {
    const TimePoint when = Now() + microseconds(250 * i);
    alarm.Set(when);
    EXPECT_TRUE(GoesOff(alarm, 10000));
    EXPECT_GE(Now(), when);
  }
}

TEST(AlarmTest, WhatIsSetLastCounts) {
  Alarm alarm;
  alarm.Set(Now() + milliseconds(1));
  alarm.Set(Now() + seconds(1000));
  EXPECT_FALSE(GoesOff(alarm, 20));
  alarm.Set(Now() - seconds(1));
  EXPECT_TRUE(GoesOff(alarm, 10000));
}

using PoolerAlarmTest = PoolerTest;

TEST_F(PoolerAlarmTest, AResetGoesOutLaterThanTheTurnThoughNothingElseHappens) {
  constexpr std::size_t kIdleColumn = 5;
  settings_.min_free_size = 3;
  Start();
  PoolerClient client = Attach();
  const Lease lease = Acquire(&client);
  ASSERT_TRUE(
      TurnUntil([&] { return View(&client, protocol::View::kPools, 0, kIdleColumn) == "3"; }));
  Release(&client, lease);
  Turn(seconds(10));
  EXPECT_TRUE(datanode_.counts().statements.empty());
  pollfd wait{pooler_->fd(), POLLIN, 0};
  ASSERT_EQ(poll(&wait, 1, 10000), 1);
  Turn(milliseconds(0));
  EXPECT_TRUE(datanode_.WaitUntil(
      [](const FakeDatanode::Counts& counts) { return !counts.statements.empty(); }));
  EXPECT_EQ(datanode_.counts().statements.front(), "DISCARD ALL");
}

}  // namespace
}  // namespace polarx
