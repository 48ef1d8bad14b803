// The epoll set: events by key, deadlines, level of detail that the engine relies on.
#include "engine/poller.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <map>
#include <thread>

#include "engine/channel.h"

namespace polarx {
namespace {

using std::chrono::milliseconds;

TEST(PollerTest, TellsTheKeysOfThoseThatAreReady) {
  Poller poller;
  Wakeup one, two, three;
  ASSERT_TRUE(poller.Add(one.fd(), EPOLLIN, 1));
  ASSERT_TRUE(poller.Add(two.fd(), EPOLLIN, 0xFFFF'FFFF'FFFF'FFFF));
  ASSERT_TRUE(poller.Add(three.fd(), EPOLLIN, 3));
  one.Signal();
  two.Signal();
  std::map<std::uint64_t, std::uint32_t> events;
  for (const epoll_event& event : poller.Wait(kNever)) {
    const std::uint64_t key = event.data.u64;  // a packed member: no reference may be bound to it
    events[key] = event.events;
  }
  EXPECT_EQ(events, (std::map<std::uint64_t, std::uint32_t>{{1, EPOLLIN}, {~0ull, EPOLLIN}}));
}

TEST(PollerTest, ADeadlineInThePastDoesNotWait) {
  Poller poller;
  const TimePoint start = Now();
  EXPECT_TRUE(poller.Wait(start - milliseconds(5)).empty());
  EXPECT_TRUE(poller.Wait(TimePoint{}).empty());
  EXPECT_LT(Now() - start, milliseconds(1000));
}

TEST(PollerTest, ADeadlineHasPassedWhenTheWaitIsOver) {
  Poller poller;
  for (int i = 0; i < 5; ++i) {
    const TimePoint deadline = Now() + std::chrono::microseconds(1500 + 100 * i);
    EXPECT_TRUE(poller.Wait(deadline).empty());
    EXPECT_GE(Now(), deadline);
  }
}

TEST(PollerTest, AnEventEndsAWaitWithoutDeadline) {
  Poller poller;
  Wakeup wakeup;
  ASSERT_TRUE(poller.Add(wakeup.fd(), EPOLLIN, 9));
  std::thread sender([&] { wakeup.Signal(); });
  const auto events = poller.Wait(kNever);
  sender.join();
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(std::uint64_t{events[0].data.u64}, 9u);
}

TEST(PollerTest, ChangeAndRemoveTakeEffect) {
  Poller poller;
  Wakeup wakeup;
  wakeup.Signal();
  ASSERT_TRUE(poller.Add(wakeup.fd(), 0, 1));
  EXPECT_TRUE(poller.Wait(TimePoint{}).empty());
  ASSERT_TRUE(poller.Change(wakeup.fd(), EPOLLIN, 2));
  const auto events = poller.Wait(TimePoint{});
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(std::uint64_t{events[0].data.u64}, 2u);
  poller.Remove(wakeup.fd());
  EXPECT_TRUE(poller.Wait(TimePoint{}).empty());
  EXPECT_FALSE(poller.Change(wakeup.fd(), EPOLLIN, 2));
}

TEST(PollerTest, RefusesWhatCannotBeWatched) {
  Poller poller;
  EXPECT_FALSE(poller.Add(-1, EPOLLIN, 1));
  UniqueFd file(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  EXPECT_FALSE(poller.Add(file.get(), EPOLLIN, 1));
}

TEST(PollerTest, AHangUpIsSeenWhileDataAreNot) {
  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  UniqueFd here(ends[0]), there(ends[1]);
  Poller poller;
  ASSERT_TRUE(poller.Add(here.get(), EPOLLRDHUP | EPOLLET, 1));
  ASSERT_EQ(::send(there.get(), "data", 4, 0), 4);
  EXPECT_TRUE(poller.Wait(TimePoint{}).empty());
  there.Reset();
  const auto events = poller.Wait(Now() + std::chrono::seconds(10));
  ASSERT_EQ(events.size(), 1u);
  EXPECT_NE(events[0].events & EPOLLRDHUP, 0u);
  EXPECT_TRUE(poller.Wait(TimePoint{}).empty()) << "told once";
}

TEST(PollerTest, ASignalEndsTheWaitWithoutEvents) {
  struct sigaction action {
  }, old{};
  action.sa_handler = [](int) {};
  ASSERT_EQ(::sigaction(SIGUSR1, &action, &old), 0);
  Poller poller;
  std::atomic<bool> done = false;
  const pthread_t self = pthread_self();
  std::thread sender([&] {
    while (!done) {  // the first may come before the wait
      pthread_kill(self, SIGUSR1);
      std::this_thread::yield();
    }
  });
  EXPECT_TRUE(poller.Wait(Now() + std::chrono::seconds(60)).empty());
  done = true;
  sender.join();
  ::sigaction(SIGUSR1, &old, nullptr);
}

}  // namespace
}  // namespace polarx
