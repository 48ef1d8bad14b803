// Waits begin with a look as long as looks find something.
#include "core/busy_poll.h"

#include <gtest/gtest.h>

#include <vector>

namespace polarx {
namespace {

// How many of `waits` begin with a look; each look ends with `found`.
int Looks(BusyPoll* policy, int waits, bool found) {
  int looks = 0;
  for (int i = 0; i < waits; ++i) {
    if (policy->Begin()) {
      ++looks;
      policy->End(found);
    }
  }
  return looks;
}

TEST(BusyPollTest, EveryWaitBeginsWithALookAsLongAsLooksFind) {
  BusyPoll policy;
  EXPECT_EQ(Looks(&policy, 1000, true), 1000);
}

TEST(BusyPollTest, LooksThatFindNothingBecomeRare) {
  BusyPoll policy;
  std::vector<int> at;
  for (int wait = 0; wait < 400; ++wait) {
    if (policy.Begin()) {
      at.push_back(wait);
      policy.End(false);
    }
  }
  EXPECT_EQ(at, (std::vector<int>{0, 2, 5, 10, 19, 36, 69, 134, 199, 264, 329, 394}));
}

TEST(BusyPollTest, LooksThatFindBringThemBack) {
  BusyPoll policy;
  EXPECT_EQ(Looks(&policy, 1000, false), 21);
  EXPECT_GE(Looks(&policy, 2 * BusyPoll::kMostSkipped, true), 7);
  EXPECT_EQ(Looks(&policy, 100, true), 100);
  EXPECT_EQ(Looks(&policy, 6, false), 3);  // the first, the third and the sixth
}

TEST(BusyPollTest, WhereMostFindNothingOneThatFindsIsNoReason) {
  BusyPoll policy;
  int looks = 0;
  for (int wait = 0; wait < 10000; ++wait) {
    if (policy.Begin()) {
      policy.End(++looks % 3 == 0);
    }
  }
  EXPECT_LT(looks, 300);
}

}  // namespace
}  // namespace polarx
