// Waits begin with a look as long as looks find something.
#include "polarx_pooler/core/busy_poll.h"

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

TEST(BusyPollTest, OneThatFindsBringsThemBack) {
  BusyPoll policy;
  EXPECT_EQ(Looks(&policy, 1000, false), 21);
  while (!policy.Begin()) {
  }
  policy.End(true);
  EXPECT_EQ(Looks(&policy, 100, true), 100);
  EXPECT_EQ(Looks(&policy, 6, false), 3);  // the first, the third and the sixth
}

}  // namespace
}  // namespace polarx
