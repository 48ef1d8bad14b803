// The alarm goes off when it was told to, and resets that wait for others go out by it.
#include "engine/alarm.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <chrono>
#include <vector>

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

class PoolerAlarmTest : public PoolerTest {
 protected:
  // With so many idle ones no reset is in a hurry.
  PoolerAlarmTest() { settings_.min_free_size = 3; }
  ::testing::AssertionResult AwaitIdle(PoolerClient* client) {
    constexpr std::size_t kIdleColumn = 5;
    return TurnUntil([&] { return View(client, protocol::View::kPools, 0, kIdleColumn) == "3"; });
  }
};

TEST_F(PoolerAlarmTest, AResetGoesOutLaterThanTheTurnThoughNothingElseHappens) {
  Start();
  PoolerClient client = Attach();
  const Lease lease = Acquire(&client);
  ASSERT_TRUE(AwaitIdle(&client));
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

// There is no session that it could get in the way of.
TEST_F(PoolerAlarmTest, TheResetOfWhatASessionThatIsGoneHadParkedGoesOutWithTheTurn) {
  std::vector<NodeCell> node_cells(kCellsOfAWorker);
  std::vector<LeaseCell> lease_cells(kCellsOfASession);
  node_cells_ = node_cells;
  lease_cells_ = lease_cells.data();
  Start();
  {
    PoolerClient client = Attach();
    Ask(&client, 1);
    const std::optional<ClientReply> reply = Reply(&client);
    ASSERT_TRUE(reply && std::holds_alternative<protocol::Granted>(reply->reply));
    const protocol::GrantedLease& lease = std::get<protocol::Granted>(reply->reply).leases[0];
    ASSERT_LT(lease.cell, kCellsOfASession);
    ASSERT_EQ(parking::Park(&lease_cells[lease.cell], node_cells[lease.node_cell], lease.lease,
                            parking::State::kParked),
              parking::Parked::kYes);
    ASSERT_TRUE(AwaitIdle(&client));
    ASSERT_TRUE(datanode_.counts().statements.empty());
  }
  Turn(seconds(10));
  ASSERT_TRUE(datanode_.WaitUntil(
      [](const FakeDatanode::Counts& counts) { return !counts.statements.empty(); }));
  EXPECT_EQ(datanode_.counts().statements.front(), "DISCARD ALL");
}

}  // namespace
}  // namespace polarx
