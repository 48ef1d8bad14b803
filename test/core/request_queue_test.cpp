// RequestQueue: in order of arrival, each with its time, and one with slots kept for it.
#include "core/request_queue.h"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "core/slot_table.h"

namespace polarx {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class RequestQueueTest : public ::testing::Test {
 protected:
  static constexpr std::size_t kNodes = 3;

  RequestQueueTest() {
    settings_.pooler_connect_timeout = seconds(3);
    settings_.pooler_dn_set_timeout = seconds(10);
    for (std::size_t index = 0; index < kNodes; ++index) {
      nodes_[index].definition.id = static_cast<NodeId>(index + 1);
      nodes_[index].limits.max_size = 10;
      for (int user = 0; user < 2; ++user) {
        pools_.push_back(
            std::make_unique<Pool>(pools_.size() + 1, &nodes_[index], MappingDefinition{}));
        nodes_[index].pools.push_back(pools_.back().get());
      }
    }
  }
  Pool* PoolOf(std::size_t node, std::size_t user = 0) { return pools_[2 * node + user].get(); }
  Ticket* Add(const std::vector<Pool*>& pools, Duration queue_timeout = Duration::zero()) {
    auto ticket = std::make_unique<Ticket>();
    ticket->session = ++session_;
    for (Pool* pool : pools) {
      ticket->wants.push_back({.node = pool->node->definition.id, .role = 1, .pool = pool});
    }
    return queue_.Add(std::move(ticket), queue_timeout, settings_, now_);
  }
  Slot* Idle(Pool* pool) {
    Slot* slot = slots_.Add(pool, now_);
    slots_.Move(slot, SlotState::kIdle, now_);
    return slot;
  }
  // A lease of the node ends now.
  void TurnOver(Pool* pool) {
    Slot* slot = Idle(pool);
    slots_.Move(slot, SlotState::kLeased, now_);
    slots_.Move(slot, SlotState::kClosing, now_);
    slots_.Remove(slot);
  }
  void TurnOverAll() {
    for (std::size_t node = 0; node < kNodes; ++node) {
      TurnOver(PoolOf(node));
    }
  }

  TimePoint now_{seconds(1000)};
  Settings settings_;
  std::array<Node, kNodes> nodes_;
  std::vector<std::unique_ptr<Pool>> pools_;
  SlotTable slots_;
  RequestQueue queue_;
  SessionId session_ = 0;
};

TEST_F(RequestQueueTest, TicketsStandInOrderOfArrivalInPoolsAndNodes) {
  Ticket* first = Add({PoolOf(0, 1)});
  Ticket* second = Add({PoolOf(0, 0), PoolOf(1, 0)});
  Ticket* third = Add({PoolOf(0, 1)});
  EXPECT_EQ(nodes_[0].heads.begin()->second, PoolOf(0, 1));
  EXPECT_EQ(nodes_[0].heads.size(), 2u);
  EXPECT_EQ(nodes_[0].waiting, 3);
  EXPECT_EQ(nodes_[0].waiting_single, 2);
  EXPECT_EQ(RequestQueue::PlaceOn(nodes_[0], *third), 3);
  EXPECT_EQ(RequestQueue::PlaceOn(nodes_[1], *second), 1);
  EXPECT_EQ(RequestQueue::LastWithin(nodes_[0], 1), first->id);
  EXPECT_EQ(RequestQueue::LastWithin(nodes_[0], 2), third->id) << "of those for it alone";
  EXPECT_EQ(RequestQueue::LastWithin(nodes_[1], 1), 0u);
  (void)queue_.Remove(first);
  EXPECT_EQ(nodes_[0].heads.begin()->second, PoolOf(0, 0));
  (void)queue_.Remove(second);
  (void)queue_.Remove(third);
  EXPECT_TRUE(nodes_[0].heads.empty() && nodes_[0].hurried.empty());
  EXPECT_EQ(nodes_[0].waiting + nodes_[0].waiting_single + nodes_[1].waiting, 0);
  EXPECT_TRUE(queue_.empty());
  EXPECT_EQ(queue_.NextTime(), kNever);
}

TEST_F(RequestQueueTest, OneThatIsReboundKeepsItsTurn) {
  Ticket* moved = Add({PoolOf(0, 0)});
  Add({PoolOf(0, 1)});
  queue_.Rebind(moved, now_, [&] { moved->wants[0].pool = PoolOf(0, 1); });
  EXPECT_EQ(PoolOf(0, 1)->queue.begin()->second, moved);
  EXPECT_TRUE(PoolOf(0, 0)->queue.empty());
}

TEST_F(RequestQueueTest, EachHasATimeAtWhichItIsAnswered) {
  struct Case {
    const char* what;
    Duration queue_timeout;
    bool slots_come_back;
    Duration answer;
  };
  for (const Case& c : {Case{"no queue_timeout", {}, false, seconds(3)},
                        Case{"no queue_timeout, a slot comes back", {}, true, seconds(10)},
                        Case{"queue_timeout", milliseconds(500), false, milliseconds(500)},
                        Case{"a longer one", seconds(60), true, seconds(60)}}) {
    SCOPED_TRACE(c.what);
    const TimePoint came = now_;
    Slot* slot = Idle(PoolOf(0));
    if (c.slots_come_back) {
      slots_.Move(slot, SlotState::kLeased, now_);
      slots_.Move(slot, SlotState::kResetting, now_);
    }
    Ticket* ticket = Add({PoolOf(0)}, c.queue_timeout);
    while (queue_.TakeExpired(now_) == nullptr) {
      ASSERT_NE(queue_.NextTime(), kNever);
      now_ = queue_.NextTime();
    }
    EXPECT_EQ(now_, came + c.answer);
    (void)queue_.Remove(ticket);
    slots_.Move(slot, SlotState::kClosing, now_);
    slots_.Remove(slot);
  }
}

TEST_F(RequestQueueTest, PausedTimeDoesNotCount) {
  Ticket* ticket = Add({PoolOf(0)});
  now_ += seconds(1);
  nodes_[0].paused = true;
  queue_.NotePauses(now_);
  EXPECT_EQ(RequestQueue::PausedNode(*ticket), &nodes_[0]);
  EXPECT_EQ(queue_.NextTime(), now_ + RequestQueue::kPauseLimit);
  now_ += seconds(9);
  nodes_[0].paused = false;
  queue_.NotePauses(now_);
  EXPECT_EQ(queue_.NextTime(), now_ + seconds(2));
  EXPECT_EQ(queue_.TakeExpired(now_), nullptr);
  now_ += seconds(2);
  EXPECT_EQ(queue_.TakeExpired(now_), ticket);
}

TEST_F(RequestQueueTest, TheOldestForSeveralNodesHasTheTokenWhileItsNodesHaveTurnover) {
  Ticket* old = Add({PoolOf(0), PoolOf(1)}, seconds(60));
  Ticket* young = Add({PoolOf(1), PoolOf(2)}, seconds(60));
  TurnOverAll();
  EXPECT_FALSE(queue_.PassToken(now_)) << "not before 100 ms";
  EXPECT_EQ(queue_.NextTime(), now_ + RequestQueue::kKeepAfter);
  now_ += RequestQueue::kKeepAfter;
  EXPECT_TRUE(queue_.PassToken(now_));
  EXPECT_EQ(queue_.holder(), old);
  EXPECT_EQ(PoolOf(0)->kept + PoolOf(1)->kept, 2);
  EXPECT_EQ(PoolOf(2)->kept, 0);
  now_ += milliseconds(900);
  TurnOver(PoolOf(1));
  TurnOver(PoolOf(2));
  EXPECT_TRUE(queue_.PassToken(now_)) << "the first node is still";
  EXPECT_EQ(queue_.holder(), young);
  EXPECT_EQ(PoolOf(0)->kept, 0);
  EXPECT_EQ(PoolOf(2)->kept, 1);
  nodes_[2].paused = true;
  now_ += seconds(1);
  EXPECT_TRUE(queue_.PassToken(now_));
  EXPECT_EQ(queue_.holder(), nullptr);
  nodes_[2].paused = false;
  TurnOverAll();
  (void)queue_.PassToken(now_);
  EXPECT_EQ(queue_.holder(), old);
  (void)queue_.Remove(old);
  (void)queue_.PassToken(now_);
  EXPECT_EQ(queue_.holder(), young);
  (void)queue_.Remove(young);
  EXPECT_EQ(queue_.holder(), nullptr);
  EXPECT_EQ(PoolOf(1)->kept + PoolOf(2)->kept, 0);
}

TEST_F(RequestQueueTest, ANodeThatIsHeldOffKeepsTheTokenAway) {
  Add({PoolOf(0), PoolOf(1)}, seconds(60));
  TurnOverAll();
  now_ += RequestQueue::kKeepAfter;
  (void)nodes_[1].hold_off.Fail(Status("08001", "refused"), now_, 0);
  EXPECT_FALSE(queue_.PassToken(now_));
  EXPECT_EQ(queue_.holder(), nullptr);
  now_ = nodes_[1].hold_off.retry_at();
  TurnOverAll();
  EXPECT_TRUE(queue_.PassToken(now_)) << "it lends, and no connect has been needed since";
}

TEST_F(RequestQueueTest, WhatIsKeptIsForTheHolderAndForThoseBeforeIt) {
  Ticket* before = Add({PoolOf(0)}, seconds(60));
  Ticket* holder = Add({PoolOf(0), PoolOf(1)}, seconds(60));
  Ticket* behind = Add({PoolOf(0)}, seconds(60));
  Idle(PoolOf(0));
  TurnOverAll();
  now_ += RequestQueue::kKeepAfter;
  ASSERT_TRUE(queue_.PassToken(now_));
  ASSERT_EQ(queue_.holder(), holder);
  EXPECT_EQ(queue_.IdleFor(*before, *PoolOf(0)), 1);
  EXPECT_EQ(queue_.IdleFor(*behind, *PoolOf(0)), 0);
  EXPECT_FALSE(queue_.HasAll(*holder));
  Idle(PoolOf(1));
  EXPECT_TRUE(queue_.HasAll(*holder));
  Idle(PoolOf(0));
  EXPECT_EQ(queue_.IdleFor(*behind, *PoolOf(0)), 1) << "one is kept, not all";
}

TEST_F(RequestQueueTest, OneThatLacksASlotElsewhereComesLater) {
  Ticket* single = Add({PoolOf(0)}, seconds(60));
  Ticket* several = Add({PoolOf(0), PoolOf(1)}, seconds(60));
  EXPECT_FALSE(queue_.ComesLater(*single, *PoolOf(0)));
  EXPECT_TRUE(queue_.ComesLater(*several, *PoolOf(0)));
  Idle(PoolOf(1));
  EXPECT_FALSE(queue_.ComesLater(*several, *PoolOf(0)));
  EXPECT_TRUE(queue_.ComesLater(*several, *PoolOf(1)));
}

using RequestQueueDeathTest = RequestQueueTest;

TEST_F(RequestQueueDeathTest, ASessionWaitsOnce) {
  Add({PoolOf(0)});
  --session_;
  EXPECT_DEATH(Add({PoolOf(1)}), "session");
}

}  // namespace
}  // namespace polarx
