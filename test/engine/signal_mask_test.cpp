// Threads: name, mask, and whom a signal reaches.
#include "engine/signal_mask.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <future>
#include <string>

namespace polarx {
namespace {

sigset_t CurrentMask() {
  sigset_t mask;
  pthread_sigmask(SIG_SETMASK, nullptr, &mask);
  return mask;
}

TEST(StartThreadTest, GivesTheThreadItsName) {
  char name[16] = {};
  Result<std::thread> thread =
      StartThread("pooler-w0", [&name] { pthread_getname_np(pthread_self(), name, sizeof(name)); });
  ASSERT_TRUE(thread.ok());
  thread.value().join();
  EXPECT_STREQ(name, "pooler-w0");
}

TEST(StartThreadTest, BlocksEverySignalThereAndNoneHere) {
  const sigset_t before = CurrentMask();
  sigset_t there;
  sigemptyset(&there);
  Result<std::thread> thread = StartThread("pooler-w0", [&there] { there = CurrentMask(); });
  ASSERT_TRUE(thread.ok());
  thread.value().join();
  const sigset_t after = CurrentMask();
  for (const int signal : {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGURG, SIGCHLD,
                           SIGALRM, SIGPIPE, SIGIO}) {
    EXPECT_EQ(sigismember(&there, signal), 1) << signal;
    EXPECT_EQ(sigismember(&after, signal), sigismember(&before, signal)) << signal;
  }
}

std::atomic<int> signals_in_thread;
std::atomic<int> signals_elsewhere;
pthread_t the_thread;

TEST(StartThreadTest, SignalsOfTheProcessDoNotReachIt) {
  signals_in_thread = 0;
  signals_elsewhere = 0;
  std::promise<void> stop;
  std::promise<void> running;
  Result<std::thread> thread = StartThread("pooler-w0", [&] {
    running.set_value();
    stop.get_future().wait();
  });
  ASSERT_TRUE(thread.ok());
  running.get_future().wait();
  the_thread = thread.value().native_handle();

  struct sigaction action {
  }, old{};
  action.sa_handler = [](int) {
    ++(pthread_equal(pthread_self(), the_thread) ? signals_in_thread : signals_elsewhere);
  };
  ASSERT_EQ(::sigaction(SIGUSR1, &action, &old), 0);
  sigset_t usr1, before;
  sigemptyset(&usr1);
  sigaddset(&usr1, SIGUSR1);
  pthread_sigmask(SIG_BLOCK, &usr1, &before);
  // Blocked here, open nowhere: it stays pending instead of being taken by the thread.
  ::kill(::getpid(), SIGUSR1);
  sigset_t pending;
  sigpending(&pending);
  EXPECT_EQ(sigismember(&pending, SIGUSR1), 1);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  EXPECT_EQ(signals_in_thread, 0);
  EXPECT_EQ(signals_elsewhere, 1);

  stop.set_value();
  thread.value().join();
  ::sigaction(SIGUSR1, &old, nullptr);
}

}  // namespace
}  // namespace polarx
