// When a failed connect is tried again, and whom it concerns.
#include "core/hold_off.h"

#include <gtest/gtest.h>

namespace polarx {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

const TimePoint kStart{seconds(1000)};
const Status kRefused(sqlstate::kConnectionFailed,
                      "could not connect to datanode \"dn1\": refused");

TEST(ScopeOfFailure, TellsTheNodesTroubleFromThePools) {
  for (const char* state : {"08001", "08006", "53300", "57P03"}) {
    EXPECT_EQ(ScopeOfFailure(state), FailureScope::kNode) << state;
  }
  for (const char* state : {"28P01", "28000", "3D000", "42501", "0A000", "2F003"}) {
    EXPECT_EQ(ScopeOfFailure(state), FailureScope::kPool) << state;
  }
  EXPECT_EQ(ScopeOfFailure("53000"), FailureScope::kSelf) << "this process has no descriptor";
}

TEST(ScopeOfFailure, WhatFailsBehindTheFirstAnswerConcernsThePool) {
  const ConnectReach server = ConnectReach::kServer;
  EXPECT_EQ(ScopeOfFailure("08001", server), FailureScope::kPool) << "its authentication hangs";
  EXPECT_EQ(ScopeOfFailure("08P01", server), FailureScope::kPool);
  EXPECT_EQ(ScopeOfFailure("28P01", server), FailureScope::kPool);
  EXPECT_EQ(ScopeOfFailure("57P03", server), FailureScope::kNode) << "the datanode says so itself";
  EXPECT_EQ(ScopeOfFailure("53300", server), FailureScope::kNode);
  EXPECT_EQ(ScopeOfFailure("53000", server), FailureScope::kSelf);
}

TEST(HoldOff, DoublesUpToItsLongestDelay) {
  HoldOff hold_off;
  EXPECT_TRUE(hold_off.Permits(kStart));
  Duration expected = HoldOff::kFirstDelay;
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(hold_off.Fail(kRefused, kStart, 0), i == 0)
        << "a change of state only the first time";
    EXPECT_EQ(hold_off.retry_at() - kStart, expected);
    EXPECT_FALSE(hold_off.Permits(kStart));
    EXPECT_TRUE(hold_off.Permits(kStart + expected));
    expected = std::min(expected * 2, HoldOff::kLongestDelay);
  }
  EXPECT_EQ(hold_off.retry_at() - kStart, HoldOff::kLongestDelay);
}

TEST(HoldOff, JitterShortensByAQuarterAtMost) {
  HoldOff hold_off;
  (void)hold_off.Fail(kRefused, kStart, 0.999);
  EXPECT_LT(hold_off.retry_at() - kStart, milliseconds(80));
  EXPECT_GE(hold_off.retry_at() - kStart, milliseconds(75));
}

TEST(HoldOff, StartsAnewAfterItEnded) {
  HoldOff hold_off;
  (void)hold_off.Fail(kRefused, kStart, 0);
  (void)hold_off.Fail(kRefused, kStart, 0);
  EXPECT_TRUE(hold_off.Clear());
  EXPECT_FALSE(hold_off.Clear());
  EXPECT_EQ(hold_off.status().message(), kRefused.message()) << "the last error stays to be seen";
  EXPECT_TRUE(hold_off.Fail(kRefused, kStart, 0));
  EXPECT_EQ(hold_off.retry_at() - kStart, HoldOff::kFirstDelay);
}

TEST(HoldOff, RemembersForAWhileThatThereWasNoRoom) {
  const Status full("53300", "sorry, too many clients already");
  HoldOff hold_off;
  EXPECT_FALSE(hold_off.Crowded(kStart));
  (void)hold_off.Fail(full, kStart, 0);
  (void)hold_off.Clear();
  EXPECT_TRUE(hold_off.Crowded(kStart)) << "one found room, the next may not";
  EXPECT_TRUE(hold_off.Crowded(kStart + HoldOff::kCrowdedFor - milliseconds(1)));
  EXPECT_FALSE(hold_off.Crowded(kStart + HoldOff::kCrowdedFor));
  (void)hold_off.Fail(kRefused, kStart, 0);
  EXPECT_FALSE(hold_off.Crowded(kStart)) << "other trouble";
  (void)hold_off.Fail(Status("53000", "no descriptor left"), kStart, 0);
  EXPECT_FALSE(hold_off.Crowded(kStart)) << "the pooler's own lack";
}

TEST(HoldOff, RefusalSaysWhyAndWhenAgain) {
  HoldOff hold_off;
  (void)hold_off.Fail(kRefused, kStart, 0);
  (void)hold_off.Fail(kRefused, kStart, 0);
  const Status refusal = hold_off.Refusal(kStart);
  EXPECT_EQ(refusal.sqlstate(), "08001");
  EXPECT_EQ(refusal.message(), kRefused.message());
  EXPECT_EQ(refusal.detail(), "The next attempt is in 0.2 s.");
}

}  // namespace
}  // namespace polarx
