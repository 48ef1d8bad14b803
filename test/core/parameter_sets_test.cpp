// Equal parameter values are one set while somebody holds it, and both ends of a session's socket
// agree, whatever is sent, on which sets the session keeps.
#include "core/parameter_sets.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace polarx {
namespace {

const protocol::Parameters kBerlin = {{"client_encoding", "UTF8"}, {"TimeZone", "Europe/Berlin"}};
const protocol::Parameters kUtc = {{"client_encoding", "UTF8"}, {"TimeZone", "UTC"}};

SharedParameters Numbered(std::uint64_t id) {
  return std::make_shared<const ParameterSet>(ParameterSet{id, kUtc});
}

TEST(ParameterSetsTest, EqualValuesAreOneSet) {
  ParameterSets sets;
  const SharedParameters berlin = sets.Intern(kBerlin);
  const SharedParameters utc = sets.Intern(kUtc);
  EXPECT_EQ(sets.Intern(kBerlin), berlin);
  EXPECT_EQ(sets.Intern(kUtc), utc);
  EXPECT_NE(berlin, utc);
  EXPECT_NE(berlin->id, utc->id);
  EXPECT_EQ(berlin->values, kBerlin);
  EXPECT_EQ(utc->values, kUtc);
}

TEST(ParameterSetsTest, NoneHasTheNumberOfNone) {
  ParameterSets sets;
  EXPECT_NE(sets.Intern({})->id, 0u);
}

TEST(ParameterSetsTest, AValueMoreOrLessIsAnotherSet) {
  ParameterSets sets;
  const SharedParameters whole = sets.Intern(kBerlin);
  const SharedParameters less = sets.Intern({kBerlin[0]});
  const SharedParameters none = sets.Intern({});
  EXPECT_NE(less, whole);
  EXPECT_NE(none, less);
  EXPECT_NE(none, whole);
}

TEST(ParameterSetsTest, ASetLivesAsLongAsItIsHeldAndItsNumberIsNeverGivenAgain) {
  ParameterSets sets;
  SharedParameters held = sets.Intern(kBerlin);
  const std::weak_ptr<const ParameterSet> seen = held;
  std::vector<std::uint64_t> ids = {held->id};
  SharedParameters copy = held;
  held.reset();
  EXPECT_EQ(sets.Intern(kBerlin), copy) << "somebody holds it";
  copy.reset();
  EXPECT_TRUE(seen.expired()) << "the sets themselves hold none";
  for (int i = 0; i < 100; ++i) {
    const SharedParameters again = sets.Intern(i % 2 == 0 ? kBerlin : kUtc);
    EXPECT_EQ(std::count(ids.begin(), ids.end(), again->id), 0);
    ids.push_back(again->id);
  }
}

TEST(ToldSetsTest, EachIsToldOnce) {
  ToldSets told;
  EXPECT_TRUE(told.MustTell(1));
  EXPECT_TRUE(told.MustTell(2));
  EXPECT_FALSE(told.MustTell(1));
  EXPECT_FALSE(told.MustTell(2));
}

TEST(ToldSetsTest, TheOldestOfSixteenIsForgottenAndUseDoesNotMakeItYounger) {
  ToldSets told;
  for (std::uint64_t id = 1; id <= kSetsOfASession; ++id) {
    EXPECT_TRUE(told.MustTell(id));
  }
  for (std::uint64_t id = 1; id <= kSetsOfASession; ++id) {
    EXPECT_FALSE(told.MustTell(id)) << id;
  }
  EXPECT_TRUE(told.MustTell(17));
  EXPECT_FALSE(told.MustTell(2));
  EXPECT_TRUE(told.MustTell(1)) << "1 was the oldest";
  EXPECT_TRUE(told.MustTell(2)) << "then 2";
  EXPECT_FALSE(told.MustTell(4));
}

TEST(KnownSetsTest, FindsWhatWasAdded) {
  KnownSets known;
  EXPECT_EQ(known.Find(1), nullptr);
  EXPECT_EQ(known.Find(0), nullptr);
  const SharedParameters one = Numbered(1);
  const SharedParameters two = Numbered(2);
  known.Add(one);
  known.Add(two);
  EXPECT_EQ(known.Find(1), one);
  EXPECT_EQ(known.Find(2), two);
  EXPECT_EQ(known.Find(3), nullptr);
}

TEST(KnownSetsTest, KeepsSixteen) {
  KnownSets known;
  for (std::uint64_t id = 1; id <= kSetsOfASession + 2; ++id) {
    known.Add(Numbered(id));
  }
  EXPECT_EQ(known.Find(1), nullptr);
  EXPECT_EQ(known.Find(2), nullptr);
  for (std::uint64_t id = 3; id <= kSetsOfASession + 2; ++id) {
    ASSERT_NE(known.Find(id), nullptr) << id;
    EXPECT_EQ(known.Find(id)->id, id);
  }
}

// Both ends side by side, for sequences of 40 sets drawn by a fixed generator.
TEST(KnownSetsTest, WhatThePoolerNeedNotTellTheSessionKnows) {
  ToldSets told;
  KnownSets known;
  std::uint32_t random = 1;
  int not_told = 0;
  int told_again = 0;
  std::vector<bool> ever(41, false);
  for (int i = 0; i < 20'000; ++i) {
    random = random * 1664525 + 1013904223;
    // Some are often asked for, some rarely.
    const std::uint64_t id = (random >> 16) % ((random >> 8) % 2 == 0 ? 10 : 40) + 1;
    if (told.MustTell(id)) {
      ASSERT_EQ(known.Find(id), nullptr) << "it is sent to who has it: the ends disagree";
      told_again += ever[id] ? 1 : 0;
      ever[id] = true;
      known.Add(Numbered(id));
    } else {
      ++not_told;
      ASSERT_NE(known.Find(id), nullptr) << "turn " << i << ", set " << id;
      ASSERT_EQ(known.Find(id)->id, id);
    }
  }
  EXPECT_GT(not_told, 1000);
  EXPECT_GT(told_again, 1000);
}

}  // namespace
}  // namespace polarx
