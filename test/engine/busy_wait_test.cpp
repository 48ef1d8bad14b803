// A thread looks at a descriptor for a moment, or leaves it to the wait that follows.
#include "engine/busy_wait.h"

#include <gtest/gtest.h>

#include "engine/channel.h"

namespace polarx {
namespace {

TEST(BusyWaitTest, FindsWhatIsThere) {
  Wakeup wakeup;
  BusyPoll policy;
  wakeup.Signal();
  EXPECT_TRUE(WaitBusily(wakeup.fd(), &policy));
  EXPECT_TRUE(WaitBusily(wakeup.fd(), &policy));
}

TEST(BusyWaitTest, GivesUpAfterItsTime) {
  Wakeup wakeup;
  BusyPoll policy;
  const TimePoint start = Now();
  EXPECT_FALSE(WaitBusily(wakeup.fd(), &policy));
  EXPECT_GE(Now() - start, BusyPoll::kLook);
}

TEST(BusyWaitTest, DoesNotLookWhereItWouldBeInVain) {
  Wakeup wakeup;
  BusyPoll policy;
  EXPECT_FALSE(WaitBusily(wakeup.fd(), &policy));
  wakeup.Signal();
  EXPECT_FALSE(WaitBusily(wakeup.fd(), &policy));  // one is left out
  EXPECT_TRUE(WaitBusily(wakeup.fd(), &policy));
}

}  // namespace
}  // namespace polarx
