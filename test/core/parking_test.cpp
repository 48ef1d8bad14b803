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
};

std::set<std::string> FaultsOf(const Rules& rules, std::uint64_t* ways) {
  std::set<std::string> faults;
  for (const Acts& acts : kSessions) {
    const bool ends_parked = !acts.empty() && acts.back() == Act::kPark;
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
          faults.insert(walker.faults().begin(), walker.faults().end());
          *ways += walker.ways();
        }
      }
    }
  }
  return faults;
}

std::set<std::string> FaultsOf(const Rules& rules) {
  std::uint64_t ways = 0;
  return FaultsOf(rules, &ways);
}

TEST(ParkingTest, ThePromisesHoldInEveryInterleaving) {
  std::uint64_t ways = 0;
  EXPECT_EQ(FaultsOf(Rules(), &ways), std::set<std::string>{});
  EXPECT_GT(ways, 100000u);
}

// --- rules that are wrong -----------------------------------------------------------------------

TEST(ParkingTest, WhoParksMustLookAfterwards) {
  Rules rules;
  rules.park = [](FakeCell* cell, const FakeNode& node, std::uint64_t lease) {
    return node.waiting.load() == 0 && parking::Change(cell, lease, State::kFresh, State::kParked)
               ? Parked::kYes
               : Parked::kNo;
  };
  EXPECT_TRUE(FaultsOf(rules).contains("waits for ever"));
}

TEST(ParkingTest, WhoGivesBackMustLookAfterwards) {
  Rules rules;
  rules.give_back = [](FakeCell* cell, const FakeNode& node, std::uint64_t lease) {
    const bool given =
        node.waiting.load() == 0 && parking::Change(cell, lease, State::kFresh, State::kReturned);
    return given ? Parked::kYes : Parked::kNo;
  };
  EXPECT_TRUE(FaultsOf(rules).contains("waits for ever"));
}

TEST(ParkingTest, WhatIsNotFreshMustNotBeGivenBackThere) {
  Rules rules;
  rules.give_back = [](FakeCell* cell, const FakeNode& node, std::uint64_t lease) {
    if (parking::Change(cell, lease, State::kLeased, State::kReturned)) {
      return Parked::kYes;
    }
    return parking::GiveBack(cell, node, lease);
  };
  EXPECT_TRUE(FaultsOf(rules).contains("waits for ever"));
}

TEST(ParkingTest, WhoHasLookedMustSayThatItWillNotLookAgain) {
  Rules rules;
  rules.look_again = parking::TakeReturned<FakeCell>;
  EXPECT_TRUE(FaultsOf(rules).contains("waits for ever"));
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
  EXPECT_FALSE(FaultsOf(rules).empty());
}

TEST(ParkingTest, WhoParksMustNotLookTooEarly) {
  Rules rules;
  rules.park = [](FakeCell* cell, const FakeNode& node, std::uint64_t lease) {
    const bool waited = node.waiting.load() != 0 || node.waiting.load() != 0;
    if (!(parking::Change(cell, lease, State::kFresh, State::kParked) ||
          parking::Change(cell, lease, State::kLeased, State::kParked))) {
      return Parked::kNo;
    }
    if (!waited) {
      return Parked::kYes;
    }
    return parking::Unpark(cell, lease) ? Parked::kNo : Parked::kTaken;
  };
  EXPECT_TRUE(FaultsOf(rules).contains("waits for ever"));
}

TEST(ParkingTest, WhoWaitsMustPublishBeforeItLooks) {
  Rules rules;
  rules.publishes_first = false;
  EXPECT_TRUE(FaultsOf(rules).contains("waits for ever"));
}

TEST(ParkingTest, WhoTakesAgainMustLookWhetherOthersWait) {
  Rules rules;
  rules.retake = [](FakeCell* cell, const FakeNode&, std::uint64_t lease) {
    return parking::Unpark(cell, lease) ? Retaken::kYes : Retaken::kTaken;
  };
  EXPECT_TRUE(FaultsOf(rules).contains("overtakes who waits"));
}

TEST(ParkingTest, WhoTakesAgainMustSwap) {
  Rules rules;
  rules.retake = [](FakeCell* cell, const FakeNode& node, std::uint64_t lease) {
    if (node.waiting.load() != 0 || parking::StateOf(*cell, lease) != State::kParked) {
      return Retaken::kNotNow;
    }
    cell->word.store(parking::Word(lease, State::kLeased));
    return Retaken::kYes;
  };
  EXPECT_TRUE(FaultsOf(rules).contains("two owners"));
}

TEST(ParkingTest, WhoParksAndIsNotToMustSwapBack) {
  Rules rules;
  rules.park = [](FakeCell* cell, const FakeNode& node, std::uint64_t lease) {
    if (!(parking::Change(cell, lease, State::kFresh, State::kParked) ||
          parking::Change(cell, lease, State::kLeased, State::kParked))) {
      return Parked::kNo;
    }
    return node.waiting.load() == 0 ? Parked::kYes : Parked::kNo;
  };
  EXPECT_TRUE(FaultsOf(rules).contains("two owners"));
}

TEST(ParkingTest, ThePoolerMustSwapToo) {
  Rules rules;
  rules.take = [](FakeCell* cell, std::uint64_t lease) {
    if (parking::StateOf(*cell, lease) != State::kParked) {
      return false;
    }
    cell->word.store(0);
    return true;
  };
  EXPECT_TRUE(FaultsOf(rules).contains("two owners"));
}

TEST(ParkingTest, ThePoolerMustNotTakeWhatIsInUse) {
  Rules rules;
  rules.take = [](FakeCell* cell, std::uint64_t lease) {
    parking::Free(cell, lease);
    return true;
  };
  EXPECT_TRUE(FaultsOf(rules).contains("two owners"));
}

TEST(ParkingTest, ARecallMustBeMarked) {
  Rules rules;
  rules.take_or_recall = parking::Take<FakeCell>;
  EXPECT_TRUE(FaultsOf(rules).contains("parked though recalled"));
}

TEST(ParkingTest, ARecallMustSwap) {
  Rules rules;
  rules.take_or_recall = [](FakeCell* cell, std::uint64_t lease) {
    const State state = parking::StateOf(*cell, lease);
    if (parking::InUse(state)) {
      cell->word.store(parking::Word(lease, State::kRecalled));
    }
    return state == State::kParked && parking::Take(cell, lease);
  };
  EXPECT_FALSE(FaultsOf(rules).empty());
}

TEST(ParkingTest, TheLeaseMustBeThatOfTheCell) {
  Rules rules;
  rules.park = [](FakeCell* cell, const FakeNode& node, std::uint64_t) {
    return parking::Park(cell, node, cell->word.load() >> parking::kStateBits);
  };
  rules.unpark = [](FakeCell* cell, std::uint64_t) {
    std::uint64_t word = cell->word.load();
    return cell->word.compare_exchange_strong(
        word, parking::Word(word >> parking::kStateBits, State::kLeased));
  };
  EXPECT_TRUE(FaultsOf(rules).contains("two owners"));
}

}  // namespace
}  // namespace polarx
