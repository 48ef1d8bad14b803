// The worker threads as the main thread has them: when orders go out, which thread has which
// connection, the end.
#include "engine/worker_fleet.h"

#include <gtest/gtest.h>

#include <chrono>
#include <set>
#include <variant>

#include "fake/fake_datanode.h"

namespace polarx {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr std::uint64_t kWakeupKey = 1, kAlarmKey = 2;
constexpr NodeId kNode = 16400;

class WorkerFleetTest : public ::testing::Test {
 protected:
  void Start(int threads) {
    ASSERT_TRUE(fleet_.Start(threads, &poller_, kWakeupKey, kAlarmKey).ok());
  }
  void SendConnect(SlotId slot, TimePoint due) {
    fleet_.Send(fleet_.AddConnection(kNode),
                ConnectOrder{.slot = slot,
                             .node_name = "dn1",
                             .options = {{"dbname", "d"},
                                         {"gssencmode", "disable"},
                                         {"host", "127.0.0.1"},
                                         {"port", std::to_string(datanode_.port())},
                                         {"sslmode", "disable"},
                                         {"user", "u"}},
                             .deadline = Now() + seconds(10),
                             .timeout = seconds(10)},
                due);
  }
  // Waits for events until one has that key.
  bool Comes(std::uint64_t key, Duration limit = seconds(10)) {
    const TimePoint deadline = Now() + limit;
    do {
      for (const epoll_event& event : poller_.Wait(deadline)) {
        if (event.data.u64 == key) {
          return true;
        }
      }
    } while (Now() < deadline);
    return false;
  }
  bool IsConnected() {
    std::vector<Completion> completions;
    fleet_.Receive(&completions);
    return completions.size() == 1 && std::holds_alternative<Connected>(completions[0]);
  }

  FakeDatanode datanode_;
  Poller poller_;
  WorkerFleet fleet_;
};

TEST_F(WorkerFleetTest, AnOrderThatIsDueGoesOut) {
  Start(1);
  SendConnect(1, TimePoint{});
  fleet_.FlushDue(Now());
  ASSERT_TRUE(Comes(kWakeupKey));
  fleet_.OnWakeup();
  EXPECT_TRUE(IsConnected());
}

// The time of a turn may have been read before the alarm went off: it is set anew, not lost.
TEST_F(WorkerFleetTest, TheAlarmComesUntilTheOrderHasGoneOut) {
  Start(1);
  const TimePoint old = Now();
  SendConnect(1, old + milliseconds(2));
  for (int turn = 0; turn < 3; ++turn) {
    fleet_.FlushDue(old);
    ASSERT_TRUE(Comes(kAlarmKey)) << "turn " << turn;
    fleet_.OnAlarm();
  }
  fleet_.FlushDue(Now());
  ASSERT_TRUE(Comes(kWakeupKey));
  EXPECT_TRUE(IsConnected());
}

TEST_F(WorkerFleetTest, WhatIsHurriedGoesOutAtOnce) {
  Start(1);
  SendConnect(1, Now() + seconds(3600));
  fleet_.Hurry();
  fleet_.FlushDue(Now());
  ASSERT_TRUE(Comes(kWakeupKey));
  EXPECT_TRUE(IsConnected());
}

TEST_F(WorkerFleetTest, TheConnectionsOfANodeAreSpreadOverTheThreads) {
  Start(3);
  std::multiset<int> threads;
  for (int i = 0; i < 6; ++i) {
    threads.insert(fleet_.AddConnection(kNode));
  }
  EXPECT_EQ(threads, (std::multiset<int>{0, 0, 1, 1, 2, 2}));
  fleet_.RemoveConnection(kNode, 1);
  fleet_.RemoveConnection(kNode, 1);
  EXPECT_EQ(fleet_.AddConnection(kNode), 1);
  EXPECT_EQ(fleet_.AddConnection(kNode + 1), 1) << "the thread that has fewest in all";
  EXPECT_EQ(fleet_.connections(), 6);
}

TEST_F(WorkerFleetTest, WhatBlocksRunsElsewhereAndIsReported) {
  Start(1);
  fleet_.RunBlocking("key", []() -> Completion { return Pinged{7, Status(), 1.5}; });
  ASSERT_TRUE(Comes(kWakeupKey));
  std::vector<Completion> completions;
  fleet_.Receive(&completions);
  ASSERT_EQ(completions.size(), 1u);
  EXPECT_EQ(std::get<Pinged>(completions[0]).ping, 7u);
}

TEST_F(WorkerFleetTest, StopsTwice) {
  Start(2);
  EXPECT_TRUE(fleet_.Stop());
  EXPECT_TRUE(fleet_.Stop());
}

}  // namespace
}  // namespace polarx
