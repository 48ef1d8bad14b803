// Dispatcher: oldest first, each turn uses something up, and no more turns than there are slots and
// groups of requests.
#include "core/dispatcher.h"

#include <gtest/gtest.h>

#include <array>
#include <map>
#include <memory>
#include <vector>

#include "core/slot_table.h"

namespace polarx {
namespace {

class DispatcherTest : public ::testing::Test {
 protected:
  static constexpr std::size_t kNodes = 2;

  DispatcherTest() {
    for (std::size_t index = 0; index < kNodes; ++index) {
      nodes_[index].definition.id = static_cast<NodeId>(index + 1);
      nodes_[index].limits.max_size = 100;
    }
    AddPools(2);
  }
  // So many more on each node.
  void AddPools(int count) {
    for (; count > 0; --count) {
      for (Node& node : nodes_) {
        pools_.push_back(std::make_unique<Pool>(pools_.size() + 1, &node, MappingDefinition{}));
        node.pools.push_back(pools_.back().get());
      }
    }
  }
  Pool* PoolOf(std::size_t node, std::size_t user = 0) {
    return pools_[kNodes * user + node].get();
  }
  void AddIdle(Pool* pool) { slots_.Move(slots_.Add(pool, now_), SlotState::kIdle, now_); }
  void FillNode(std::size_t node) {
    while (nodes_[node].total() < nodes_[node].limits.max_size) {
      slots_.Move(slots_.Add(PoolOf(node, 1), now_), SlotState::kLeased, now_);
    }
  }
  TicketId Add(const std::vector<Pool*>& pools) {
    auto ticket = std::make_unique<Ticket>();
    ticket->session = ++session_;
    for (Pool* pool : pools) {
      ticket->wants.push_back({.node = pool->node->definition.id, .role = 1, .pool = pool});
    }
    return queue_.Add(std::move(ticket), std::chrono::seconds(60), {}, now_)->id;
  }
  // Every pool has so many permissions left.
  void Dispatch(const std::vector<Pool*>& round, int permissions) {
    std::map<Pool*, int> left;
    served_.clear();
    granted_.clear();
    (void)dispatcher_.Dispatch(round,
                               {.begin = [&](Pool* pool) { left[pool] = permissions; },
                                .serve =
                                    [&](Ticket* ticket, Pool* pool) {
                                      const bool gets = left[pool]-- > 0;
                                      if (gets) {
                                        served_.emplace_back(ticket->id, pool);
                                      }
                                      return gets;
                                    },
                                .grant = [&](Ticket* ticket) { granted_.push_back(ticket->id); }});
  }

  TimePoint now_{std::chrono::seconds(1000)};
  std::array<Node, kNodes> nodes_;
  std::vector<std::unique_ptr<Pool>> pools_;
  SlotTable slots_;
  RequestQueue queue_;
  Dispatcher dispatcher_{&queue_};
  std::vector<std::pair<TicketId, Pool*>> served_;
  std::vector<TicketId> granted_;
  SessionId session_ = 0;
};

using Served = std::vector<std::pair<TicketId, Pool*>>;

TEST_F(DispatcherTest, TheOldestComeFirstOverAllPoolsOfANode) {
  Pool* one = PoolOf(0, 0);
  Pool* two = PoolOf(0, 1);
  const TicketId first = Add({two});
  const TicketId second = Add({one});
  const TicketId third = Add({two});
  Dispatch({one}, 5);
  EXPECT_EQ(served_, (Served{{first, two}, {second, one}, {third, two}}));
}

TEST_F(DispatcherTest, WhereNothingIsLeftThePoolIsOverAndOthersGoOn) {
  Pool* one = PoolOf(0, 0);
  Pool* two = PoolOf(0, 1);
  const TicketId first = Add({one});
  Add({one});
  const TicketId third = Add({two});
  Dispatch({one, two}, 1);
  EXPECT_EQ(served_, (Served{{first, one}, {third, two}}));
}

TEST_F(DispatcherTest, RequestsForSeveralNodesThatLackAnotherSlotComeAfterSingleOnes) {
  Pool* here = PoolOf(0);
  const TicketId both = Add({here, PoolOf(1)});
  const TicketId single = Add({here});
  Dispatch({here}, 5);
  EXPECT_EQ(served_, (Served{{single, here}, {both, here}}));
}

TEST_F(DispatcherTest, APoolIsMarkedOnce) {
  dispatcher_.Mark(PoolOf(0));
  dispatcher_.MarkAll(nodes_[0]);
  EXPECT_EQ(dispatcher_.TakeMarked(), nodes_[0].pools);
  EXPECT_FALSE(dispatcher_.has_marked());
  Add({PoolOf(1)});
  dispatcher_.MarkWaiting(nodes_[1]);
  EXPECT_EQ(dispatcher_.TakeMarked(), std::vector<Pool*>{PoolOf(1)});
}

TEST_F(DispatcherTest, StarvingPoolsAreLookedAtWhenARequestIsGone) {
  const TicketId first = Add({PoolOf(1)});
  Add({PoolOf(0)});
  dispatcher_.NoteStarving(PoolOf(0));
  (void)dispatcher_.TakeOut(PoolOf(1)->queue.at(first));
  EXPECT_EQ(dispatcher_.TakeMarked(), (std::vector<Pool*>{PoolOf(1), PoolOf(0)}));
  EXPECT_FALSE(dispatcher_.starving());
}

TEST_F(DispatcherTest, OfManyPoolsThatWaitForTheirNodeTheFirstOnesAreLookedAt) {
  AddPools(800);
  for (Pool* pool : nodes_[0].pools) {
    dispatcher_.HoldUp(pool, HeldUp::kOpening);
    dispatcher_.HoldUp(pool, HeldUp::kOpening);
  }
  const auto mark = [&](bool may_go_on) {
    dispatcher_.MarkHeldUp(
        &nodes_[0], HeldUp::kOpening, 8, [&](const Pool&) { return may_go_on; },
        [](const Pool& pool) { return pool.id != 1; });
    return dispatcher_.TakeMarked();
  };
  EXPECT_TRUE(mark(false).empty()) << "the first one does not wait any more";
  const std::vector<Pool*> marked = mark(true);
  EXPECT_EQ(marked, std::vector<Pool*>(nodes_[0].pools.begin() + 1, nodes_[0].pools.begin() + 9));
  EXPECT_EQ(mark(true).front(), nodes_[0].pools[9]) << "each in turn";
}

// Of each case the turns with few and with sixteen times as many that wait.
class DispatcherCostTest : public DispatcherTest {
 protected:
  template <typename Step>
  std::uint64_t Turns(Step step) {
    const std::uint64_t before = dispatcher_.turns();
    step();
    return dispatcher_.turns() - before;
  }
};

TEST_F(DispatcherCostTest, RequestsForSeveralNodesBesideAnIdleSlot) {
  AddIdle(PoolOf(0));
  FillNode(1);
  std::uint64_t turns[2];
  for (const int index : {0, 1}) {
    for (int more = index == 0 ? 50 : 750; more > 0; --more) {
      Add({PoolOf(0), PoolOf(1)});
    }
    turns[index] = Turns([&] { Dispatch({PoolOf(0)}, 1); });
  }
  EXPECT_EQ(turns[1], turns[0]) << "none has all that it wants: nor have those behind the first";
  EXPECT_LE(turns[1], 4u);
}

TEST_F(DispatcherCostTest, RequestsForSeveralNodesBesideSingleOnes) {
  FillNode(1);
  std::uint64_t turns[2];
  for (const int index : {0, 1}) {
    for (int more = index == 0 ? 50 : 750; more > 0; --more) {
      Add({PoolOf(0), PoolOf(1)});
    }
    Add({PoolOf(0)});
    turns[index] = Turns([&] { Dispatch({PoolOf(0)}, 2); });
  }
  EXPECT_LE(turns[1], turns[0] + 1);
}

TEST_F(DispatcherCostTest, AFullNodeWithoutAnythingToGive) {
  FillNode(0);
  for (int more = 1000; more > 0; --more) {
    Add({PoolOf(0)});
  }
  EXPECT_EQ(Turns([&] { Dispatch({PoolOf(0)}, 1000); }), 0u);
}

TEST_F(DispatcherCostTest, ManyPoolsWithRequestsAndOneThingToGive) {
  AddPools(800);
  for (std::size_t user = 0; user < 800; ++user) {
    Add({PoolOf(0, user)});
    Add({PoolOf(0, user)});
  }
  const std::uint64_t turns = Turns([&] { Dispatch({PoolOf(0)}, 0); });
  EXPECT_EQ(turns, 800u) << "each pool is asked once";
}

}  // namespace
}  // namespace polarx
