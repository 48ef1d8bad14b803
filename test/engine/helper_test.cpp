// Helper threads: work is done, one key cannot take all threads, a stuck one does not hold up Stop.
#include "engine/helper.h"

#include <gtest/gtest.h>
#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "core/time.h"

namespace polarx {
namespace {

using std::chrono::seconds;

// Shared with tasks, which may outlive the test's frame.
class Gate {
 public:
  void Enter() {  // waits until it opens
    std::unique_lock lock(mutex_);
    ++inside_;
    most_inside_ = std::max(most_inside_, inside_);
    changed_.notify_all();
    changed_.wait(lock, [this] { return open_; });
    --inside_;
    ++passed_;
    changed_.notify_all();
  }
  void Open() {
    std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  bool WaitForInside(int count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, seconds(10), [&] { return inside_ == count; });
  }
  bool WaitForPassed(int count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, seconds(10), [&] { return passed_ == count; });
  }
  int most_inside() {
    std::lock_guard lock(mutex_);
    return most_inside_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = false;
  int inside_ = 0;
  int most_inside_ = 0;
  int passed_ = 0;
};

std::shared_ptr<Gate> MakeGate() { return std::make_shared<Gate>(); }

TEST(HelperPoolTest, RunsEveryTask) {
  auto gate = MakeGate();
  gate->Open();
  HelperPool pool(3, 2);
  for (int i = 0; i < 200; ++i) {
    pool.Run(HelperLane::kLookup, "key" + std::to_string(i % 7), [gate] { gate->Enter(); });
  }
  EXPECT_TRUE(gate->WaitForPassed(200));
  EXPECT_TRUE(pool.Stop());
}

TEST(HelperPoolTest, RunsAsManyAtOnceAsItHasThreads) {
  auto gate = MakeGate();
  HelperPool pool(3, 3);
  for (int i = 0; i < 8; ++i) {
    pool.Run(HelperLane::kLookup, "key" + std::to_string(i), [gate] { gate->Enter(); });
  }
  EXPECT_TRUE(gate->WaitForInside(3));
  gate->Open();
  EXPECT_TRUE(gate->WaitForPassed(8));
  EXPECT_EQ(gate->most_inside(), 3);
}

TEST(HelperPoolTest, OneSilentKeyLeavesThreadsForOthers) {
  auto silent = MakeGate();
  auto quick = MakeGate();
  quick->Open();
  HelperPool pool(3, 2);
  for (int i = 0; i < 5; ++i) {
    pool.Run(HelperLane::kLookup, "silent", [silent] { silent->Enter(); });
  }
  ASSERT_TRUE(silent->WaitForInside(2));
  for (int i = 0; i < 5; ++i) {
    pool.Run(HelperLane::kLookup, "quick", [quick] { quick->Enter(); });
  }
  EXPECT_TRUE(quick->WaitForPassed(5));
  EXPECT_EQ(silent->most_inside(), 2);
  silent->Open();
  EXPECT_TRUE(silent->WaitForPassed(5)) << "tasks of a key that had to wait must run later";
}

TEST(HelperPoolTest, ATaskThatMayNotRunStartsNoThread) {
  auto gate = MakeGate();
  HelperPool pool(8, 2);
  for (int i = 0; i < 20; ++i) {
    pool.Run(HelperLane::kLookup, "silent", [gate] { gate->Enter(); });
  }
  ASSERT_TRUE(gate->WaitForInside(2));
  EXPECT_EQ(pool.thread_count(), 2u);
  gate->Open();
  EXPECT_TRUE(gate->WaitForPassed(20));
  EXPECT_EQ(pool.thread_count(), 2u);
}

TEST(HelperPoolTest, EachLaneHasThreadsOfItsOwn) {
  auto stuck = MakeGate();
  auto quick = MakeGate();
  quick->Open();
  HelperPool pool(2, 2);
  for (int i = 0; i < 5; ++i) {
    pool.Run(HelperLane::kLookup, "key" + std::to_string(i), [stuck] { stuck->Enter(); });
  }
  ASSERT_TRUE(stuck->WaitForInside(2));
  pool.Run(HelperLane::kCancel, "key", [quick] { quick->Enter(); });
  pool.Run(HelperLane::kPing, "key", [quick] { quick->Enter(); });
  EXPECT_TRUE(quick->WaitForPassed(2));
  EXPECT_EQ(stuck->most_inside(), 2);
  stuck->Open();
  EXPECT_TRUE(stuck->WaitForPassed(5));
}

TEST(HelperPoolTest, KeysTakeTurns) {
  auto gate = MakeGate();
  auto other = MakeGate();
  auto order = std::make_shared<std::vector<std::string>>();  // of the one thread
  HelperPool pool(1, 1);
  pool.Run(HelperLane::kLookup, "a", [gate] { gate->Enter(); });
  ASSERT_TRUE(gate->WaitForInside(1));
  for (int i = 0; i < 3; ++i) {
    pool.Run(HelperLane::kLookup, "a", [order] { order->push_back("a"); });
  }
  pool.Run(HelperLane::kLookup, "b", [order] { order->push_back("b"); });
  pool.Run(HelperLane::kLookup, "c", [other] { other->Enter(); });
  gate->Open();
  ASSERT_TRUE(other->WaitForInside(1));
  EXPECT_EQ(order->front(), "b") << "the one that asks often does not go first";
  other->Open();
  EXPECT_TRUE(other->WaitForPassed(1));
}

TEST(HelperPoolTest, ThreadsHaveNamesAndBlockSignals) {
  struct Seen {
    std::mutex mutex;
    std::set<std::string> names;
    bool blocked = true;
  };
  auto seen = std::make_shared<Seen>();
  auto gate = MakeGate();
  HelperPool pool(2, 2);
  for (int i = 0; i < 2; ++i) {
    pool.Run(HelperLane::kLookup, "key", [seen, gate] {
      char name[16] = {};
      pthread_getname_np(pthread_self(), name, sizeof(name));
      sigset_t mask;
      pthread_sigmask(SIG_SETMASK, nullptr, &mask);
      {
        std::lock_guard lock(seen->mutex);
        seen->names.insert(name);
        seen->blocked = seen->blocked && sigismember(&mask, SIGTERM) == 1;
      }
      gate->Enter();
    });
  }
  ASSERT_TRUE(gate->WaitForInside(2));
  gate->Open();
  ASSERT_TRUE(pool.Stop());
  EXPECT_EQ(seen->names, (std::set<std::string>{"pooler-h0", "pooler-h1"}));
  EXPECT_TRUE(seen->blocked);
}

TEST(HelperPoolTest, AStuckTaskDoesNotHoldUpStop) {
  auto gate = MakeGate();
  {
    HelperPool pool(2, 1);
    pool.Run(HelperLane::kLookup, "stuck", [gate] { gate->Enter(); });
    pool.Run(HelperLane::kLookup, "stuck", [gate] { gate->Enter(); });  // never begins
    ASSERT_TRUE(gate->WaitForInside(1));
    const TimePoint start = Now();
    EXPECT_FALSE(pool.Stop());
    EXPECT_FALSE(pool.Stop());
    EXPECT_GE(Now() - start, HelperPool::kJoinLimit);
    EXPECT_LT(Now() - start, HelperPool::kJoinLimit + seconds(2));
  }
  // The thread ends after the pool: what they share is still there.
  gate->Open();
  EXPECT_TRUE(gate->WaitForPassed(1));
  EXPECT_EQ(gate->most_inside(), 1);
}

TEST(HelperPoolTest, StopWaitsForATaskThatEndsInTime) {
  auto gate = MakeGate();
  HelperPool pool(2, 1);
  pool.Run(HelperLane::kLookup, "key", [gate] { gate->Enter(); });
  ASSERT_TRUE(gate->WaitForInside(1));
  std::thread opener([gate] { gate->Open(); });
  EXPECT_TRUE(pool.Stop());
  opener.join();
  EXPECT_TRUE(gate->WaitForPassed(1));
}

TEST(HelperPoolTest, StopDropsWhatWaitsAndWhatComesLater) {
  auto gate = MakeGate();
  std::weak_ptr<int> waiting, late;
  HelperPool pool(1, 1);
  pool.Run(HelperLane::kLookup, "key", [gate] { gate->Enter(); });
  ASSERT_TRUE(gate->WaitForInside(1));
  {
    auto owned = std::make_shared<int>(1);
    waiting = owned;
    pool.Run(HelperLane::kLookup, "key", [owned] { ADD_FAILURE() << "ran after Stop"; });
  }
  EXPECT_FALSE(waiting.expired());
  EXPECT_FALSE(pool.Stop());
  EXPECT_TRUE(waiting.expired());
  {
    auto owned = std::make_shared<int>(1);
    late = owned;
    pool.Run(HelperLane::kLookup, "key", [owned] { ADD_FAILURE() << "ran after Stop"; });
  }
  EXPECT_TRUE(late.expired());
  gate->Open();
  EXPECT_TRUE(gate->WaitForPassed(1));
}

TEST(HelperPoolTest, WhatATaskOwnsMayAskForMoreWhenItGoes) {
  auto gate = MakeGate();
  gate->Open();
  HelperPool pool(1, 1);
  std::shared_ptr<int> owned(new int(1), [&pool, gate](int* value) {
    delete value;
    pool.Run(HelperLane::kLookup, "key", [gate] { gate->Enter(); });
  });
  pool.Run(HelperLane::kLookup, "key", [owned = std::move(owned)] {});
  EXPECT_TRUE(gate->WaitForPassed(1));
}

TEST(HelperPoolTest, APoolThatWasNeverUsedStopsAtOnce) {
  const TimePoint start = Now();
  HelperPool pool(4, 2);
  EXPECT_TRUE(pool.Stop());
  EXPECT_LT(Now() - start, HelperPool::kJoinLimit);
}

TEST(HelperPoolTest, TakesTasksFromManyThreads) {
  auto gate = MakeGate();
  gate->Open();
  HelperPool pool(4, 2);
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back([&pool, gate, i] {
      for (int j = 0; j < 50; ++j) {
        pool.Run(HelperLane::kLookup, std::to_string((i + j) % 3), [gate] { gate->Enter(); });
      }
    });
  }
  for (std::thread& caller : callers) {
    caller.join();
  }
  EXPECT_TRUE(gate->WaitForPassed(200));
}

}  // namespace
}  // namespace polarx
