// ConnectGate: when a connection may be opened, and what a failure means for whom.
#include "core/connect_gate.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "core/slot_table.h"

namespace polarx {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

const Status kSilent("08001", "no answer");

class ConnectGateTest : public ::testing::Test, public Surroundings {
 protected:
  ConnectGateTest() {
    node_.definition.name = "dn1";
    node_.limits.max_size = 100;
    for (const char* user : {"alice", "bob"}) {
      MappingDefinition mapping;
      mapping.remote_user = user;
      pools_.push_back(std::make_unique<Pool>(pools_.size() + 1, &node_, mapping));
      node_.pools.push_back(pools_.back().get());
    }
  }
  Status RoomFor(const Node&) override { return {}; }
  int SessionPid(SessionId) override { return 1; }
  void Log(const std::string& message, const std::string&) override { logs_.push_back(message); }

  Pool* alice() { return pools_[0].get(); }
  Pool* bob() { return pools_[1].get(); }
  // A request that waits in the pool since then.
  void Wait(Pool* pool, TimePoint since) {
    tickets_.push_back(std::make_unique<Ticket>());
    tickets_.back()->id = tickets_.size();
    tickets_.back()->arrived_at = since;
    pool->queue.emplace(tickets_.back()->id, tickets_.back().get());
    ++node_.waiting;
  }
  bool Opens(Pool* pool, ConnectPurpose purpose = ConnectPurpose::kRequest) {
    if (!gate_.MayOpen(*pool, purpose, now_)) {
      return false;
    }
    ConnectGate::OnOrdered(slots_.Add(pool, now_));
    return true;
  }
  bool Fills(Pool* pool) { return Opens(pool, ConnectPurpose::kReserve); }
  // The pool's connect that is under way ends.
  Slot* Succeed(Pool* pool) {
    Slot* slot = &pool->list(SlotState::kConnecting).back();
    slots_.Move(slot, SlotState::kIdle, now_);
    slot->age.created_at = now_;
    gate_.OnConnected(pool, milliseconds(1), now_);
    return slot;
  }
  void Drop(Slot* slot) {
    slots_.Move(slot, SlotState::kClosing, now_);
    slots_.Remove(slot);
  }
  void Fail(Pool* pool, const Status& status, FailureScope scope) {
    Slot* slot = &pool->list(SlotState::kConnecting).back();
    gate_.OnConnectFailed(*slot, status, scope, now_);
    Drop(slot);
  }
  // The datanode lets the pool in and hangs up, so often as it is asked to within the time.
  int ConnectsWithin(Duration time) {
    int connects = 0;
    for (const TimePoint end = now_ + time; now_ < end; now_ += milliseconds(1)) {
      while (const auto id = gate_.TakeDue(now_)) {
        gate_.EndTrial(pools_[*id - 1].get(), now_);
      }
      while (Fills(alice())) {
        Slot* slot = Succeed(alice());
        EXPECT_TRUE(gate_.OnEnded(*slot, "terminated", now_));
        Drop(slot);
        ++connects;
      }
    }
    return connects;
  }

  TimePoint now_{seconds(1000)};
  Node node_;
  std::vector<std::unique_ptr<Pool>> pools_;
  std::vector<std::unique_ptr<Ticket>> tickets_;
  SlotTable slots_;
  ConnectGate gate_{this, 1};
  std::vector<std::string> logs_;
};

TEST_F(ConnectGateTest, OpensEightAtATime) {
  int opened = 0;
  while (Opens(alice())) {
    ++opened;
  }
  EXPECT_EQ(opened, kParallelConnects);
  EXPECT_EQ(gate_.Ask(*alice(), ConnectPurpose::kRequest, now_).answer, ConnectVerdict::kLater);
}

TEST_F(ConnectGateTest, OnePoolGetsHalfOfThemWhileAnotherOneWaits) {
  Wait(bob(), now_);
  int opened = 0;
  while (Opens(alice())) {
    ++opened;
  }
  EXPECT_EQ(opened, kParallelConnects / 2);
  EXPECT_TRUE(Opens(bob()));
}

TEST_F(ConnectGateTest, NothingIsOpenedOnAFullOrPausedNodeNorForARetiredPool) {
  node_.paused = true;
  EXPECT_FALSE(Opens(alice()));
  node_.paused = false;
  alice()->obsolete = true;
  EXPECT_FALSE(Opens(alice()));
  EXPECT_TRUE(Opens(bob()));
  node_.limits.max_size = 1;
  EXPECT_FALSE(Opens(bob()));
}

TEST_F(ConnectGateTest, ARequestHasItsOwnAttemptAndThenOneProbeAtATimeIsMade) {
  ASSERT_TRUE(Fills(alice()));
  Fail(alice(), kSilent, FailureScope::kNode);
  EXPECT_FALSE(Fills(bob())) << "held off";
  Wait(alice(), now_);
  ASSERT_TRUE(Opens(alice())) << "nobody had asked";
  Fail(alice(), kSilent, FailureScope::kNode);
  const ConnectVerdict verdict = gate_.Ask(*bob(), ConnectPurpose::kRequest, now_);
  EXPECT_EQ(verdict.answer, ConnectVerdict::kRefused);
  EXPECT_EQ(verdict.because, &node_.hold_off);
  now_ = node_.hold_off.retry_at();
  EXPECT_TRUE(Opens(alice()));
  EXPECT_FALSE(Opens(bob())) << "one probe";
  Succeed(alice());
  EXPECT_TRUE(Opens(bob()));
  EXPECT_EQ(logs_.size(), 2u) << "trouble and recovery";
}

TEST_F(ConnectGateTest, AConnectionThatDiesUnusedIsAFailedAttemptOfItsPool) {
  const int connects = ConnectsWithin(seconds(60));
  EXPECT_LT(connects, 30) << "from 0.1 s to 5 s between two of them";
  EXPECT_GE(connects, 10) << "but it is tried again";
  EXPECT_EQ(logs_.size(), 1u);
  EXPECT_TRUE(alice()->hold_off.active());
  EXPECT_FALSE(node_.hold_off.active());
  EXPECT_NE(alice()->hold_off.status().message().find("ended before it was used"),
            std::string::npos);
  EXPECT_NE(alice()->hold_off.status().detail().find("terminated"), std::string::npos);
  EXPECT_TRUE(Opens(bob())) << "nobody else notices";
}

TEST_F(ConnectGateTest, ThoseOfOneTurnAreOneFailure) {
  std::vector<Slot*> slots;
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(Fills(alice()));
    slots.push_back(Succeed(alice()));
  }
  for (const Slot* slot : slots) {
    EXPECT_TRUE(gate_.OnEnded(*slot, "", now_));
  }
  EXPECT_LE(alice()->hold_off.retry_at(), now_ + HoldOff::kFirstDelay);
}

TEST_F(ConnectGateTest, OneThatLastsEndsThatHoldOff) {
  ASSERT_TRUE(Fills(alice()));
  Slot* slot = Succeed(alice());
  ASSERT_TRUE(gate_.OnEnded(*slot, "", now_));
  Drop(slot);
  now_ += seconds(1);
  ASSERT_TRUE(Fills(alice()));
  Succeed(alice());
  EXPECT_FALSE(Fills(alice())) << "not before that one has lasted";
  now_ += seconds(1);
  ASSERT_EQ(gate_.TakeDue(now_), alice()->id);
  gate_.EndTrial(alice(), now_);
  EXPECT_FALSE(alice()->hold_off.active());
  EXPECT_TRUE(Fills(alice()));
  EXPECT_EQ(logs_.size(), 2u);
}

TEST_F(ConnectGateTest, WhatWasLentOrIsOldIsNoFailedAttempt) {
  ASSERT_TRUE(Fills(alice()));
  Slot* slot = Succeed(alice());
  slot->age.leases = 1;
  EXPECT_FALSE(gate_.OnEnded(*slot, "", now_)) << "its holder may have ended it";
  slot->age.leases = 0;
  now_ += seconds(1);
  EXPECT_FALSE(gate_.OnEnded(*slot, "", now_)) << "an administrator may have ended it";
  EXPECT_FALSE(alice()->hold_off.active());
  node_.connect_time = seconds(2);
  EXPECT_TRUE(gate_.OnEnded(*slot, "", now_)) << "young for a node that takes so long";
}

TEST_F(ConnectGateTest, AfterARefusedLoginNothingIsTriedWithoutARequest) {
  for (const char* refused : {"28P01", "28000", "3D000"}) {
    SCOPED_TRACE(refused);
    ASSERT_TRUE(Fills(alice()));
    Fail(alice(), Status(refused, "no"), FailureScope::kPool);
    now_ += std::chrono::hours(24);
    EXPECT_FALSE(Fills(alice()));
    ASSERT_TRUE(Opens(alice())) << "a request may try";
    Fail(alice(), Status(refused, "no"), FailureScope::kPool);
    now_ += std::chrono::hours(24);
    EXPECT_FALSE(Fills(alice()));
    ConnectGate::ForgetWhatIsKnown(&node_);  // the server has changed
    EXPECT_TRUE(Fills(alice()));
    Drop(Succeed(alice()));
  }
  ASSERT_TRUE(Fills(alice()));
  Fail(alice(), Status("42501", "no right"), FailureScope::kPool);
  now_ += seconds(10);
  EXPECT_TRUE(Fills(alice())) << "that may change without anybody asking";
}

TEST_F(ConnectGateTest, OwnLackOfDescriptorsIsNotTheNodesFault) {
  ASSERT_TRUE(Fills(alice()));
  Fail(alice(), Status("08001", "refused an hour ago"), FailureScope::kNode);
  Wait(alice(), now_);
  ASSERT_TRUE(Opens(alice()));
  now_ += milliseconds(1);
  Fail(alice(), Status(sqlstate::kOutOfDescriptors, "too many open files"), FailureScope::kSelf);
  EXPECT_FALSE(node_.hold_off.proven());
  ASSERT_NE(alice()->ProvenHoldOff(), nullptr);
  EXPECT_EQ(alice()->ProvenHoldOff()->Refusal(now_).sqlstate(), sqlstate::kOutOfDescriptors);
}

TEST_F(ConnectGateTest, APingThatIsAnsweredEndsTheNodesHoldOff) {
  gate_.OnPing(&node_, false, kSilent, now_);
  EXPECT_FALSE(node_.known_up);
  EXPECT_FALSE(Fills(alice()));
  gate_.OnPing(&node_, true, Status(), now_);
  EXPECT_TRUE(Fills(alice()));
  Fail(alice(), Status("53300", "too many"), FailureScope::kNode);
  gate_.OnPing(&node_, true, Status(), now_);
  EXPECT_TRUE(node_.hold_off.active()) << "it answers, but has no room";
}

}  // namespace
}  // namespace polarx
