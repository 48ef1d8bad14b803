// A slot is leased exactly if it has a lease, a cell is one lease's, and what a session tells in
// its cell arrives.
#include "core/lease_table.h"

#include <gtest/gtest.h>

#include <array>

#include "core/slot_table.h"

namespace polarx {
namespace {

using parking::Parked;
using parking::Retaken;
using parking::State;
using std::chrono::hours;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Duration kRest = milliseconds(5);

class LeaseTableTest : public ::testing::Test {
 protected:
  LeaseTableTest() {
    node_.limits.max_size = 100;
    leases_.AllotNodeCell(&node_);
  }
  // To session 7, in the first of its cells that is free.
  Slot* Lend(bool with_cells = true) {
    Slot* slot = slots_.Add(&pool_, now_);
    slots_.Move(slot, SlotState::kLeased, now_);
    leases_.Begin(slot, {.session = 7, .role = 3, .cells = with_cells ? cells_.data() : nullptr},
                  now_);
    return slot;
  }
  void Tell(Slot* slot, Duration held) {
    slot->parking.cell->held_us.store(static_cast<std::uint32_t>(held.count()));
  }
  Parked Park(Slot* slot, State as = State::kParked) {
    slot->parking.cell->sent_ms.store(parking::ClockMs(now_));
    return parking::Park(slot->parking.cell, *node_.cell, slot->lease.id, as);
  }
  Retaken Retake(Slot* slot) {
    return parking::Retake(slot->parking.cell, *node_.cell, slot->lease.id);
  }

  std::array<NodeCell, 1> node_cells_;
  std::array<LeaseCell, kCellsOfASession> cells_;
  TimePoint now_{seconds(1000)};
  Node node_;
  Pool pool_{1, &node_, MappingDefinition{}};
  SlotTable slots_;
  LeaseTable leases_{node_cells_};
};

TEST_F(LeaseTableTest, ASlotIsFoundByItsLeaseAsLongAsItHasIt) {
  Slot* slot = Lend();
  const LeaseId lease = slot->lease.id;
  EXPECT_NE(lease, 0u);
  EXPECT_EQ(leases_.Find(lease), slot);
  EXPECT_EQ(slot->lease.session, 7u);
  EXPECT_EQ(slot->age.leases, 1u);
  leases_.End(slot, now_);
  EXPECT_EQ(leases_.Find(lease), nullptr);
  EXPECT_EQ(slot->lease.id, 0u);
  EXPECT_EQ(cells_[0].word.load(), 0u);
  EXPECT_TRUE(leases_.all().empty());
  EXPECT_NE(Lend()->lease.id, lease) << "numbers are not used twice";
}

TEST_F(LeaseTableTest, TheOldestLeaseOfANodeIsKnown) {
  EXPECT_EQ(node_.oldest_lease(), nullptr);
  Slot* first = Lend();
  Slot* second = Lend();
  Slot* third = Lend();
  slots_.MoveBehind(first);
  EXPECT_EQ(node_.oldest_lease(), first);
  leases_.End(second, now_);
  EXPECT_EQ(node_.oldest_lease(), first);
  leases_.End(first, now_);
  EXPECT_EQ(node_.oldest_lease(), third);
}

TEST_F(LeaseTableTest, EachLeaseHasACellOfItsOwnWhileThereIsOne) {
  for (std::uint32_t i = 0; i < kCellsOfASession; ++i) {
    Slot* slot = Lend();
    EXPECT_EQ(slot->parking.cell, &cells_[i]);
    EXPECT_EQ(slot->parking.cell_index, i);
  }
  EXPECT_EQ(Lend()->parking.cell, nullptr);
  EXPECT_EQ(Lend(false)->parking.cell, nullptr) << "of a session that cannot park";
}

TEST_F(LeaseTableTest, WhatANodeWithoutACellLendsIsNotParked) {
  Node other;
  leases_.AllotNodeCell(&other);
  EXPECT_EQ(other.cell, nullptr) << "there was one cell";
  EXPECT_FALSE(LeaseTable::Publish(&other, 1));
  leases_.FreeNodeCell(node_);
  leases_.AllotNodeCell(&other);
  EXPECT_EQ(other.cell, &node_cells_[0]);
}

TEST_F(LeaseTableTest, NobodyParksWhereOthersWait) {
  Slot* slot = Lend();
  EXPECT_TRUE(LeaseTable::Publish(&node_, 2));
  EXPECT_FALSE(LeaseTable::Publish(&node_, 2)) << "sessions see that already";
  EXPECT_EQ(Park(slot), Parked::kNo);
  EXPECT_TRUE(LeaseTable::Publish(&node_, 0));
  EXPECT_EQ(Park(slot), Parked::kYes);
}

TEST_F(LeaseTableTest, AParkedLeaseIsTakenAndOneInUseIsNot) {
  Slot* slot = Lend();
  EXPECT_EQ(LeaseTable::TakeParked(slot), State::kGone);
  EXPECT_EQ(Park(slot, State::kResetSent), Parked::kYes);
  EXPECT_EQ(LeaseTable::TakeParked(slot), State::kResetSent);
  EXPECT_EQ(parking::Retake(&cells_[0], *node_.cell, slot->lease.id), Retaken::kTaken);
  leases_.End(slot, now_);
}

TEST_F(LeaseTableTest, ABarredLeaseIsNotParkedAnyMore) {
  Slot* slot = Lend();
  EXPECT_EQ(LeaseTable::TakeOrBar(slot), State::kGone);
  EXPECT_EQ(Park(slot), Parked::kNo);
  Slot* parked = Lend();
  EXPECT_EQ(Park(parked), Parked::kYes);
  EXPECT_EQ(LeaseTable::TakeOrBar(parked), State::kParked);
  EXPECT_TRUE(LeaseTable::BarFromParking(*Lend()));
  Slot* last = Lend();
  EXPECT_EQ(Park(last), Parked::kYes);
  EXPECT_FALSE(LeaseTable::BarFromParking(*last));
}

TEST_F(LeaseTableTest, ARecentGrantThatCameBackIsFoundWhenItIsDue) {
  Slot* back = Lend();
  Slot* kept = Lend();
  EXPECT_EQ(leases_.recent_grants().size(), 2u);
  EXPECT_EQ(parking::GiveBack(back->parking.cell, *node_.cell, back->lease.id), Parked::kYes);
  EXPECT_EQ(leases_.TakeRecentGrant(now_), nullptr);
  EXPECT_EQ(leases_.NextDeadline(), now_ + parking::kFreshTime);
  now_ += parking::kFreshTime;
  EXPECT_EQ(leases_.TakeRecentGrant(now_), back);
  EXPECT_EQ(leases_.TakeRecentGrant(now_), nullptr);
  EXPECT_EQ(leases_.NextDeadline(), kNever);
  EXPECT_EQ(parking::GiveBack(kept->parking.cell, *node_.cell, kept->lease.id), Parked::kNo)
      << "nobody would look for it";
}

TEST_F(LeaseTableTest, ALeaseThatEndsIsNoRecentGrant) {
  Slot* slot = Lend();
  EXPECT_EQ(parking::GiveBack(slot->parking.cell, *node_.cell, slot->lease.id), Parked::kYes);
  EXPECT_TRUE(LeaseTable::TakeReturned(slot));
  EXPECT_FALSE(LeaseTable::TakeReturned(slot));
  leases_.End(slot, now_);
  EXPECT_EQ(leases_.NextDeadline(), kNever);
}

TEST_F(LeaseTableTest, WhileOthersWaitALeaseComesBackByAMessage) {
  LeaseTable::Publish(&node_, 1);
  Slot* slot = Lend();
  EXPECT_NE(slot->parking.cell, nullptr);
  EXPECT_EQ(leases_.NextDeadline(), kNever);
}

TEST_F(LeaseTableTest, RetakesCountAsLeases) {
  Slot* slot = Lend();
  EXPECT_FALSE(LeaseTable::CountRetakes(slot));
  for (int i = 0; i < 3; ++i) {
    ASSERT_EQ(Park(slot), Parked::kYes);
    ASSERT_EQ(Retake(slot), Retaken::kYes);
  }
  EXPECT_TRUE(LeaseTable::CountRetakes(slot));
  EXPECT_FALSE(LeaseTable::CountRetakes(slot));
  EXPECT_EQ(pool_.counters.acquired, 3u) << "the grant itself is for others to count";
  EXPECT_EQ(slot->age.leases, 4u);
  ASSERT_EQ(Park(slot), Parked::kYes);
  ASSERT_EQ(Retake(slot), Retaken::kYes);
  ASSERT_EQ(Park(slot), Parked::kYes);
  ASSERT_EQ(LeaseTable::TakeParked(slot), State::kParked);
  EXPECT_EQ(pool_.counters.acquired, 4u) << "none is lost when it is taken";
}

TEST_F(LeaseTableTest, TheRetakesOfACellsNextLeaseAreNotCounted) {
  for (const bool freed_again : {false, true}) {
    Slot* slot = Lend();
    for (int i = 0; i < 5; ++i) {
      ASSERT_EQ(Park(slot), Parked::kYes);
      ASSERT_EQ(Retake(slot), Retaken::kYes);
    }
    LeaseTable::CountRetakes(slot);
    const std::uint64_t counted = pool_.counters.acquired;
    LeaseCell* cell = slot->parking.cell;
    cell->word.store(0);  // as a session does that attaches anew
    Slot* next = Lend();
    ASSERT_EQ(next->parking.cell, cell);
    if (freed_again) {
      leases_.End(next, now_);
    }
    EXPECT_FALSE(LeaseTable::CountRetakes(slot));
    leases_.End(slot, now_);
    EXPECT_EQ(pool_.counters.acquired, counted);
    if (!freed_again) {
      EXPECT_EQ(parking::StateOf(*cell, next->lease.id), State::kFresh) << "it is untouched";
      leases_.End(next, now_);
    }
  }
}

TEST_F(LeaseTableTest, TheLastUseIsWhatWasHeld) {
  // In use all the time.
  Slot* slot = Lend();
  now_ += seconds(3);
  EXPECT_EQ(leases_.End(slot, now_), seconds(3));
  // Parked after 10 us, taken an hour later.
  slot = Lend();
  Tell(slot, microseconds(10));
  ASSERT_EQ(Park(slot), Parked::kYes);
  now_ += hours(1);
  ASSERT_EQ(LeaseTable::TakeParked(slot), State::kParked);
  EXPECT_EQ(leases_.End(slot, now_), microseconds(10));
  // Parked after 10 us, taken again and used for an hour.
  slot = Lend();
  Tell(slot, microseconds(10));
  ASSERT_EQ(Park(slot), Parked::kYes);
  ASSERT_EQ(Retake(slot), Retaken::kYes);
  now_ += hours(1);
  EXPECT_EQ(leases_.End(slot, now_), hours(1));
  // Given back through the cell.
  slot = Lend();
  Tell(slot, microseconds(80));
  ASSERT_EQ(parking::GiveBack(slot->parking.cell, *node_.cell, slot->lease.id), Parked::kYes);
  now_ += parking::kFreshTime;
  ASSERT_EQ(leases_.TakeRecentGrant(now_), slot);
  EXPECT_EQ(leases_.End(slot, now_), microseconds(80));
}

TEST_F(LeaseTableTest, WhatHasRestedOrIsUnusedMayBeTaken) {
  Slot* slot = Lend();
  EXPECT_FALSE(LeaseTable::IsInScope(*slot, TakeScope::kRested, kRest, now_)) << "it is in use";
  ASSERT_EQ(Park(slot, State::kResetSent), Parked::kYes);
  EXPECT_FALSE(LeaseTable::IsInScope(*slot, TakeScope::kRested, kRest, now_ + milliseconds(4)));
  EXPECT_TRUE(LeaseTable::IsInScope(*slot, TakeScope::kRested, kRest, now_ + milliseconds(5)));
  EXPECT_FALSE(LeaseTable::IsInScope(*slot, TakeScope::kRestedOrUnused, kRest, now_));
  slot->parking.parked_since = now_;  // as maintenance notes it
  EXPECT_TRUE(LeaseTable::IsInScope(*slot, TakeScope::kRestedOrUnused, kRest, now_));
  ASSERT_EQ(Retake(slot), Retaken::kYes);
  EXPECT_FALSE(LeaseTable::IsInScope(*slot, TakeScope::kRestedOrUnused, kRest, now_));
  EXPECT_TRUE(LeaseTable::IsInScope(*slot, TakeScope::kAllParked, kRest, now_));
}

TEST_F(LeaseTableTest, NodeCellsShareNoCacheLine) {
  std::array<NodeCell, 2> cells;
  EXPECT_GE(reinterpret_cast<const char*>(&cells[1].waiting) -
                reinterpret_cast<const char*>(&cells[0].waiting),
            64);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(cells.data()) % 64, 0u);
}

using LeaseTableDeathTest = LeaseTableTest;

TEST_F(LeaseTableDeathTest, ALeaseEndsOnce) {
  Slot* slot = Lend();
  leases_.End(slot, now_);
  EXPECT_DEATH(leases_.End(slot, now_), "Find");
}

}  // namespace
}  // namespace polarx
