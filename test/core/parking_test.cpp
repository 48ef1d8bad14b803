// In every interleaving of a session with the pooler a parked lease has one owner and no wake-up is
// lost; rules that are wrong on purpose are found out.
#include "parking_walk.h"

#include <gtest/gtest.h>

namespace polarx {
namespace {

using namespace parking_walk;

const std::vector<Acts> kSessions = {
    {},
    {Act::kPark},
    {Act::kPark, Act::kRetake},
    {Act::kPark, Act::kUnpark},
    {Act::kPark, Act::kRetake, Act::kPark},
    {Act::kPark, Act::kRetake, Act::kPark, Act::kRetake},
    {Act::kPark, Act::kRetake, Act::kPark, Act::kUnpark},
    {Act::kGiveBack},
    {Act::kPark, Act::kRetake, Act::kGiveBack},
    {Act::kParkBehindReset},
    {Act::kParkBehindReset, Act::kRetake, Act::kPark},
    {Act::kPark, Act::kRetake, Act::kParkBehindReset},
    {Act::kParkBehindReset, Act::kRetake, Act::kParkBehindReset, Act::kUnpark},
};

// Goes through the ways of one play after the other until `stop` has seen enough faults.
template <typename Stop>
std::uint64_t WalkAll(const Rules& rules, const Stop& stop) {
  std::uint64_t ways = 0;
  for (const Acts& acts : kSessions) {
    const bool ends_parked =
        !acts.empty() && (acts.back() == Act::kPark || acts.back() == Act::kParkBehindReset);
    for (Want want : {Want::kServe, Want::kRecall, Want::kEndSession, Want::kLook}) {
      if (want == Want::kLook && ends_parked) {
        continue;  // it may stay so
      }
      for (bool reallot : {false, true}) {
        for (Fate fate : {Fate::kLives, Fate::kMayDie, Fate::kDies}) {
          if (want == Want::kEndSession && fate != Fate::kDies) {
            continue;
          }
          const Play play{acts, want, reallot, fate};
          const Walker walker(rules, play);
          ways += walker.ways();
          if (stop(walker.faults())) {
            return ways;
          }
        }
      }
    }
  }
  return ways;
}

// Is such a fault found? "": any.
bool Finds(const Rules& rules, const std::string& fault) {
  bool found = false;
  (void)WalkAll(rules, [&](const std::set<std::string>& faults) {
    return found = fault.empty() ? !faults.empty() : faults.contains(fault);
  });
  return found;
}

TEST(ParkingTest, ThePromisesHoldInEveryInterleaving) {
  std::set<std::string> all;
  const std::uint64_t ways = WalkAll(Rules(), [&all](const std::set<std::string>& faults) {
    all.insert(faults.begin(), faults.end());
    return false;
  });
  EXPECT_EQ(all, std::set<std::string>{});
  EXPECT_GT(ways, 100000u);
}

// --- rules that are wrong -----------------------------------------------------------------------

TEST(ParkingTest, WhoParksMustLookAfterwards) {
  Rules rules;
  rules.park = [](FakeCell* cell, const FakeNode& node, std::uint64_t lease, State as) {
    return node.waiting.load() == 0 && parking::Change(cell, lease, State::kFresh, as)
               ? Parked::kYes
               : Parked::kNo;
  };
  EXPECT_TRUE(Finds(rules, "waits for ever"));
}

TEST(ParkingTest, WhoGivesBackMustLookAfterwards) {
  Rules rules;
  rules.give_back = [](FakeCell* cell, const FakeNode& node, std::uint64_t lease) {
    const bool given =
        node.waiting.load() == 0 && parking::Change(cell, lease, State::kFresh, State::kReturned);
    return given ? Parked::kYes : Parked::kNo;
  };
  EXPECT_TRUE(Finds(rules, "waits for ever"));
}

TEST(ParkingTest, WhatIsNotFreshMustNotBeGivenBackThere) {
  Rules rules;
  rules.give_back = [](FakeCell* cell, const FakeNode& node, std::uint64_t lease) {
    if (parking::Change(cell, lease, State::kLeased, State::kReturned)) {
      return Parked::kYes;
    }
    return parking::GiveBack(cell, node, lease);
  };
  EXPECT_TRUE(Finds(rules, "waits for ever"));
}

TEST(ParkingTest, WhoHasLookedMustSayThatItWillNotLookAgain) {
  Rules rules;
  rules.look_again = parking::TakeReturned<FakeCell>;
  EXPECT_TRUE(Finds(rules, "waits for ever"));
}

TEST(ParkingTest, ALookMustSwap) {
  Rules rules;
  rules.look_again = [](FakeCell* cell, std::uint64_t lease) {
    if (parking::StateOf(*cell, lease) == State::kFresh) {
      cell->word.store(parking::Word(lease, State::kLeased));
      return false;
    }
    return parking::TakeReturned(cell, lease);
  };
  EXPECT_TRUE(Finds(rules, ""));
}

TEST(ParkingTest, WhoParksMustNotLookTooEarly) {
  Rules rules;
  rules.park = [](FakeCell* cell, const FakeNode& node, std::uint64_t lease, State as) {
    const bool waited = node.waiting.load() != 0 || node.waiting.load() != 0;
    if (!(parking::Change(cell, lease, State::kFresh, as) ||
          parking::Change(cell, lease, State::kLeased, as))) {
      return Parked::kNo;
    }
    if (!waited) {
      return Parked::kYes;
    }
    return parking::Unpark(cell, lease) ? Parked::kNo : Parked::kTaken;
  };
  EXPECT_TRUE(Finds(rules, "waits for ever"));
}

TEST(ParkingTest, WhoWaitsMustPublishBeforeItLooks) {
  Rules rules;
  rules.publishes_first = false;
  EXPECT_TRUE(Finds(rules, "waits for ever"));
}

TEST(ParkingTest, WhoTakesAgainMustLookWhetherOthersWait) {
  Rules rules;
  rules.retake = [](FakeCell* cell, const FakeNode&, std::uint64_t lease) {
    return parking::Unpark(cell, lease) ? Retaken::kYes : Retaken::kTaken;
  };
  EXPECT_TRUE(Finds(rules, "overtakes who waits"));
}

TEST(ParkingTest, WhoTakesAgainMustSwap) {
  Rules rules;
  rules.retake = [](FakeCell* cell, const FakeNode& node, std::uint64_t lease) {
    if (node.waiting.load() != 0 || !parking::IsParked(parking::StateOf(*cell, lease))) {
      return Retaken::kNotNow;
    }
    cell->word.store(parking::Word(lease, State::kLeased));
    return Retaken::kYes;
  };
  EXPECT_TRUE(Finds(rules, "two owners"));
}

TEST(ParkingTest, WhoParksAndIsNotToMustSwapBack) {
  Rules rules;
  rules.park = [](FakeCell* cell, const FakeNode& node, std::uint64_t lease, State as) {
    if (!(parking::Change(cell, lease, State::kFresh, as) ||
          parking::Change(cell, lease, State::kLeased, as))) {
      return Parked::kNo;
    }
    return node.waiting.load() == 0 ? Parked::kYes : Parked::kNo;
  };
  EXPECT_TRUE(Finds(rules, "two owners"));
}

TEST(ParkingTest, ThePoolerMustSwapToo) {
  Rules rules;
  rules.take = [](FakeCell* cell, std::uint64_t lease) {
    const State state = parking::StateOf(*cell, lease);
    if (!parking::IsParked(state)) {
      return State::kGone;
    }
    cell->word.store(0);
    return state;
  };
  EXPECT_TRUE(Finds(rules, "two owners"));
}

TEST(ParkingTest, ThePoolerMustNotTakeWhatIsInUse) {
  Rules rules;
  rules.take = [](FakeCell* cell, std::uint64_t lease) {
    parking::Free(cell, lease);
    return State::kParked;
  };
  EXPECT_TRUE(Finds(rules, "two owners"));
}

TEST(ParkingTest, ARecallMustBeMarked) {
  Rules rules;
  rules.take_or_recall = parking::Take<FakeCell>;
  EXPECT_TRUE(Finds(rules, "parked though recalled"));
}

TEST(ParkingTest, ARecallMustSwap) {
  Rules rules;
  rules.take_or_recall = [](FakeCell* cell, std::uint64_t lease) {
    const State state = parking::StateOf(*cell, lease);
    if (parking::InUse(state)) {
      cell->word.store(parking::Word(lease, State::kRecalled));
    }
    return parking::IsParked(state) ? parking::Take(cell, lease) : State::kGone;
  };
  EXPECT_TRUE(Finds(rules, ""));
}

TEST(ParkingTest, TheLeaseMustBeThatOfTheCell) {
  Rules rules;
  rules.park = [](FakeCell* cell, const FakeNode& node, std::uint64_t, State as) {
    return parking::Park(cell, node, cell->word.load() >> parking::kStateBits, as);
  };
  rules.unpark = [](FakeCell* cell, std::uint64_t) {
    std::uint64_t word = cell->word.load();
    return cell->word.compare_exchange_strong(
        word, parking::Word(word >> parking::kStateBits, State::kLeased));
  };
  EXPECT_TRUE(Finds(rules, "two owners"));
}

TEST(ParkingTest, WhoParksBehindAResetMustSendItBefore) {
  Rules rules;
  rules.resets_first = false;
  EXPECT_TRUE(Finds(rules, "two owners"));
}

TEST(ParkingTest, WhoParksBehindAResetMustSaySo) {
  Rules rules;
  rules.park = [](FakeCell* cell, const FakeNode& node, std::uint64_t lease, State) {
    return parking::Park(cell, node, lease, State::kParked);
  };
  EXPECT_TRUE(Finds(rules, "an answer is left unread"));
}

TEST(ParkingTest, WhoTakesAgainMustReadTheAnswer) {
  Rules rules;
  rules.reads_answer = false;
  EXPECT_TRUE(Finds(rules, "an answer is left unread"));
}

TEST(ParkingTest, WhoTakesMustKnowOfTheReset) {
  Rules rules;
  rules.take = [](FakeCell* cell, std::uint64_t lease) {
    return parking::Take(cell, lease) == State::kGone ? State::kGone : State::kParked;
  };
  EXPECT_TRUE(Finds(rules, "an answer is left unread"));
}

}  // namespace
}  // namespace polarx
