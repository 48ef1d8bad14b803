// One time for each id, and what is due first comes first.
#include "core/timer_queue.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <random>
#include <vector>

namespace polarx {
namespace {

using Queue = TimerQueue<std::uint64_t>;

TimePoint At(int seconds) { return TimePoint(std::chrono::seconds(seconds)); }

std::vector<std::uint64_t> TakeAllDue(Queue* queue, TimePoint now) {
  std::vector<std::uint64_t> taken;
  while (const auto id = queue->TakeDue(now)) {
    taken.push_back(*id);
  }
  return taken;
}

TEST(TimerQueueTest, AnEmptyOneHasNothingDue) {
  Queue queue;
  EXPECT_EQ(queue.Next(), kNever);
  EXPECT_EQ(queue.TakeDue(At(1)), std::nullopt);
  EXPECT_EQ(queue.TakeDue(kNever), std::nullopt) << "not even at the end of time";
  EXPECT_EQ(queue.TimeOf(1), kNever);
}

TEST(TimerQueueTest, WhatIsDueComesInOrderOfTimeThenOfId) {
  Queue queue;
  queue.Set(5, At(2));
  queue.Set(4, At(3));
  queue.Set(3, At(2));
  queue.Set(2, At(4));
  EXPECT_EQ(queue.Next(), At(2));
  EXPECT_EQ(TakeAllDue(&queue, At(3)), (std::vector<std::uint64_t>{3, 5, 4}));
  EXPECT_EQ(queue.Next(), At(4));
  EXPECT_EQ(queue.TimeOf(3), kNever) << "what was taken is out";
  EXPECT_EQ(queue.TimeOf(2), At(4));
}

TEST(TimerQueueTest, AnIdHasOneTime) {
  Queue queue;
  queue.Set(1, At(5));
  queue.Set(1, At(9));
  EXPECT_EQ(queue.size(), 1u);
  EXPECT_EQ(queue.TakeDue(At(8)), std::nullopt) << "the later one holds";
  queue.Set(1, At(3));
  EXPECT_EQ(TakeAllDue(&queue, At(9)), std::vector<std::uint64_t>{1});
}

TEST(TimerQueueTest, TheEarlierOfTwoTimesIsKept) {
  Queue queue;
  queue.SetEarlier(1, At(5));
  queue.SetEarlier(1, At(9));
  EXPECT_EQ(queue.TimeOf(1), At(5));
  queue.SetEarlier(1, At(2));
  EXPECT_EQ(queue.TimeOf(1), At(2));
  queue.SetEarlier(2, kNever);
  EXPECT_EQ(queue.size(), 1u);
}

TEST(TimerQueueTest, NeverIsNoEntry) {
  Queue queue;
  queue.Set(1, At(1));
  queue.Set(1, kNever);
  queue.Set(2, kNever);
  EXPECT_EQ(queue.size(), 0u);
  queue.Remove(1);
  EXPECT_EQ(queue.Next(), kNever);
}

TEST(TimerQueueTest, AnEntryMayGoWhileTheOthersAreLookedThrough) {
  Queue queue;
  for (std::uint64_t id = 1; id <= 9; ++id) {
    queue.Set(id, At(static_cast<int>(id % 3)));
  }
  std::size_t seen = 0;
  for (auto entry = queue.entries().begin(); entry != queue.entries().end(); ++seen) {
    const std::uint64_t id = (entry++)->second;
    if (id % 2 == 0) {
      queue.Remove(id);
    }
  }
  EXPECT_EQ(seen, 9u);
  EXPECT_EQ(queue.size(), 5u);
}

// Against the obvious way: all times looked through.
TEST(TimerQueueTest, AgreesWithASearchThroughAllTimes) {
  std::minstd_rand random(7);
  Queue queue;
  std::map<std::uint64_t, TimePoint> expected;
  const auto earliest = [&] {
    auto first = expected.end();
    for (auto entry = expected.begin(); entry != expected.end(); ++entry) {
      first = first == expected.end() || entry->second < first->second ? entry : first;
    }
    return first;
  };
  for (int step = 0; step < 20000; ++step) {
    const std::uint64_t id = random() % 40;
    const TimePoint at = At(static_cast<int>(random() % 100));
    switch (random() % 4) {
      case 0:
        queue.Set(id, at);
        expected[id] = at;
        break;
      case 1:
        queue.SetEarlier(id, at);
        expected[id] = std::min(expected.try_emplace(id, at).first->second, at);
        break;
      case 2:
        queue.Remove(id);
        expected.erase(id);
        break;
      default: {
        const auto first = earliest();
        const bool due = first != expected.end() && first->second <= at;
        ASSERT_EQ(queue.TakeDue(at), due ? std::optional(first->first) : std::nullopt);
        if (due) {
          expected.erase(first);
        }
      }
    }
    ASSERT_EQ(queue.size(), expected.size());
    ASSERT_EQ(queue.Next(), expected.empty() ? kNever : earliest()->second);
  }
}

}  // namespace
}  // namespace polarx
