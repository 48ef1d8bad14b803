// Wakeup and Channel: threads of their own send, the test receives.
#include "engine/channel.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <memory>
#include <thread>
#include <vector>

namespace polarx {
namespace {

bool IsReadable(int fd, int wait_ms) {
  pollfd wait{fd, POLLIN, 0};
  return ::poll(&wait, 1, wait_ms) == 1;
}

TEST(WakeupTest, IsReadableFromSignalToClear) {
  Wakeup wakeup;
  EXPECT_FALSE(IsReadable(wakeup.fd(), 0));
  wakeup.Clear();  // does not block
  wakeup.Signal();
  wakeup.Signal();
  EXPECT_TRUE(IsReadable(wakeup.fd(), 0));
  wakeup.Clear();
  EXPECT_FALSE(IsReadable(wakeup.fd(), 0));
}

TEST(ChannelTest, WakesOnlyWhenItStopsBeingEmpty) {
  Wakeup wakeup;
  Channel<int> channel(&wakeup);
  channel.Send(1);
  EXPECT_TRUE(IsReadable(wakeup.fd(), 0));
  wakeup.Clear();
  channel.Send(2);
  EXPECT_FALSE(IsReadable(wakeup.fd(), 0));

  std::vector<int> values;
  channel.Receive(&values);
  EXPECT_EQ(values, (std::vector<int>{1, 2}));
  channel.Send(3);
  EXPECT_TRUE(IsReadable(wakeup.fd(), 0));
}

TEST(ChannelTest, CarriesValuesThatCanOnlyBeMoved) {
  Wakeup wakeup;
  Channel<std::unique_ptr<int>> channel(&wakeup);
  channel.Send(std::make_unique<int>(7));
  std::vector<std::unique_ptr<int>> values;
  channel.Receive(&values);
  ASSERT_EQ(values.size(), 1u);
  EXPECT_EQ(*values[0], 7);
}

TEST(ChannelTest, LosesNothingAndKeepsEachSendersOrder) {
  constexpr int kSenders = 4;
  constexpr int kEach = 2000;
  Wakeup wakeup;
  Channel<std::pair<int, int>> channel(&wakeup);
  std::vector<std::thread> senders;
  for (int sender = 0; sender < kSenders; ++sender) {
    senders.emplace_back([&channel, sender] {
      for (int i = 0; i < kEach; ++i) {
        channel.Send({sender, i});
      }
    });
  }
  std::vector<int> next(kSenders, 0);
  int received = 0;
  while (received < kSenders * kEach) {
    ASSERT_TRUE(IsReadable(wakeup.fd(), 10'000)) << "a wake-up was lost after " << received;
    wakeup.Clear();
    std::vector<std::pair<int, int>> values;
    channel.Receive(&values);
    for (const auto& [sender, value] : values) {
      EXPECT_EQ(value, next[static_cast<std::size_t>(sender)]++);
    }
    received += static_cast<int>(values.size());
  }
  for (std::thread& sender : senders) {
    sender.join();
  }
}

bool IsSignalled(const Wakeup& wakeup) {
  pollfd wait{wakeup.fd(), POLLIN, 0};
  return ::poll(&wait, 1, 0) == 1;
}

TEST(ChannelTest, WhatIsNotUrgentWakesOnlyWhoAwaitsIt) {
  Wakeup wakeup;
  Channel<int> channel(&wakeup);
  std::vector<int> values{1, 2};
  channel.SendAll(&values, false);
  EXPECT_TRUE(values.empty());
  EXPECT_FALSE(IsSignalled(wakeup));
  channel.Await();
  EXPECT_TRUE(IsSignalled(wakeup)) << "what was there before";

  wakeup.Clear();
  channel.Receive(&values);
  EXPECT_EQ(values, (std::vector<int>{1, 2}));
  channel.Await();
  EXPECT_FALSE(IsSignalled(wakeup)) << "nothing is there";
  values = {3};
  channel.SendAll(&values, false);
  EXPECT_TRUE(IsSignalled(wakeup)) << "it is awaited";

  wakeup.Clear();
  channel.Receive(&values);
  values = {4};
  channel.SendAll(&values, false);
  EXPECT_FALSE(IsSignalled(wakeup)) << "a Receive ends the waiting";
}

TEST(ChannelTest, SomethingUrgentWakesThoughOtherThingsWait) {
  Wakeup wakeup;
  Channel<int> channel(&wakeup);
  std::vector<int> values{1};
  channel.SendAll(&values, false);
  channel.Send(2);
  EXPECT_TRUE(IsSignalled(wakeup));
  channel.Receive(&values);
  EXPECT_EQ(values, (std::vector<int>{1, 2}));
}

}  // namespace
}  // namespace polarx
