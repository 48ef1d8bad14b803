// What a step costs where many wait: it does not grow with those that it does not concern. Times
// are compared with those of a smaller case; what grows with its square is far above the limit.
#include <cstdio>

#include "pool_book_fixture.h"

namespace polarx {
namespace {

using std::chrono::seconds;

class PoolCostTest : public PoolBookTest {
 protected:
  PoolCostTest() { settings_.pool_session_max_lifetime = seconds(1000000); }
  Status RoomFor(const Node& node) override {
    return unlimited_ ? Status() : PoolBookTest::RoomFor(node);
  }
  void OpenCatalog() {
    book_ = std::make_unique<PoolBook>(this, this, this, settings_, 1);
    for (auto* slots : {&connecting_, &resetting_, &closing_}) {
      slots->clear();
    }
    held_.clear();
    rejected_.clear();
    SendCatalog();
  }
  // The shortest one, for others use the machine, too.
  template <typename Step>
  static Duration Shortest(SessionId steps, Step step) {
    Duration shortest = std::chrono::hours(1);
    for (SessionId number = 1; number <= steps; ++number) {
      const TimePoint began = Now();
      step(number);
      shortest = std::min<Duration>(shortest, Now() - began);
    }
    return shortest;
  }

  // A release on a full node, where a request waits in each of so many pools.
  Duration ReleaseBesidePools(int pools) {
    constexpr int kSlots = 20;
    settings_.max_pool_size = kSlots;
    nodes_ = {NodeOf(kNode)};
    mappings_.clear();
    for (int i = 0; i < pools; ++i) {
      mappings_.push_back(
          MappingOf(kNode, static_cast<RoleId>(100 + i), "user" + std::to_string(i)));
    }
    OpenCatalog();
    SessionId session = 1;
    for (int i = 0; i < kSlots; ++i) {
      Ask(session++, {{kNode, static_cast<RoleId>(100 + i)}}, seconds(600));
      EndTurn();
      ConnectAll();
    }
    for (int i = 0; i < pools; ++i) {
      Ask(session++, {{kNode, static_cast<RoleId>(100 + i)}}, seconds(600));
    }
    EndTurn();
    const std::size_t grants = grants_.size();
    const Duration took = Shortest(kSlots, [this](SessionId holder) {
      GiveBack(holder);
      FinishResets();
      FinishCloses();
      ConnectAll();
    });
    EXPECT_GE(grants_.size(), grants + kSlots);
    return took;
  }

  // A release of all nodes, while so many requests for all of them wait.
  Duration ReleaseBesideRequests(int requests) {
    constexpr NodeId kNodes = 20;
    constexpr int kSlots = 4;
    settings_.max_pool_size = kSlots;
    nodes_.clear();
    mappings_.clear();
    std::vector<protocol::Wanted> all;
    for (NodeId node = 1; node <= kNodes; ++node) {
      nodes_.push_back(NodeOf(node));
      mappings_.push_back(MappingOf(node, kRole, "alice"));
      all.push_back({node, kRole});
    }
    OpenCatalog();
    SessionId session = 1;
    for (int i = 0; i < kSlots; ++i) {
      Ask(session++, all, seconds(600));
      EndTurn();
      ConnectAll();
    }
    for (int i = 0; i < requests; ++i) {
      Ask(session++, all, seconds(600));
    }
    EndTurn();
    return Shortest(kSlots, [this](SessionId holder) {
      GiveBack(holder);
      FinishResets();
    });
  }

  // A catalog with so many roles that share one remote user.
  Duration ReadCatalog(int roles) {
    nodes_ = {NodeOf(kNode)};
    mappings_.clear();
    for (int role = 0; role < roles; ++role) {
      mappings_.push_back(MappingOf(kNode, static_cast<RoleId>(100 + role), "shared"));
    }
    OpenCatalog();
    const Duration took =
        Shortest(3, [this](SessionId) { book_->SetCatalog(nodes_, mappings_, now_); });
    EXPECT_EQ(PoolOf(kNode, 100)->mapped_roles.size(), mappings_.size());
    return took;
  }

  // One pool; sessions 1 to `leased` hold a lease each.
  void LendMany(int leased) {
    nodes_ = {NodeOf(kNode)};
    mappings_ = {MappingOf(kNode, kRole, "alice")};
    OpenCatalog();
    for (SessionId session = 1; session <= static_cast<SessionId>(leased); ++session) {
      Ask(session, {{kNode, kRole}}, seconds(600));
      EndTurn();
      ConnectAll();
    }
    EXPECT_EQ(PoolOf(kNode, kRole)->count(SlotState::kLeased), leased);
  }

  // A request that is turned away, where so many are leased.
  Duration RejectBesideLeases(int leased) {
    constexpr SessionId kRejections = 200;
    settings_.max_pool_size = leased;
    LendMany(leased);
    const Duration took = Shortest(kRejections, [&](SessionId number) {
      Ask(static_cast<SessionId>(leased) + number);
      EndTurn();
    });
    EXPECT_EQ(rejected_.size(), std::size_t{kRejections});
    return took;
  }

  // A release, reset and hand-out, where so many are leased and no descriptor is left for the
  // reserve.
  Duration PairBesideLeases(int leased) {
    settings_.max_pool_size = 2 * leased;
    settings_.min_free_size = 5;
    unlimited_ = false;
    room_ = leased;
    LendMany(leased);
    const Duration took = Shortest(200, [&](SessionId) {
      GiveBack(1);
      FinishResets();
      Ask(1, {{kNode, kRole}}, seconds(600));
      EndTurn();
    });
    EXPECT_EQ(held_[1].size(), 1u);
    unlimited_ = true;
    settings_.min_free_size = 0;
    return took;
  }

  bool unlimited_ = true;  // descriptors
};

TEST_F(PoolCostTest, AReleaseBesideManyPools) {
  const Duration few = ReleaseBesidePools(40);
  const Duration many = ReleaseBesidePools(640);
  EXPECT_LT(many, 48 * few) << "16 times as many pools";
}

TEST_F(PoolCostTest, AReleaseOfAllNodesBesideManyRequests) {
  const Duration few = ReleaseBesideRequests(50);
  const Duration many = ReleaseBesideRequests(800);
  EXPECT_LT(many, 48 * few) << "16 times as many requests";
}

TEST_F(PoolCostTest, ARejectionBesideManyLeases) {
  const Duration few = RejectBesideLeases(100);
  const Duration many = RejectBesideLeases(1600);
  EXPECT_LT(many, 4 * few) << "16 times as many leases";
}

TEST_F(PoolCostTest, ACatalogOfManyRoles) {
  const Duration few = ReadCatalog(500);
  const Duration many = ReadCatalog(8000);
  EXPECT_LT(many, 48 * few) << "16 times as many roles";
}

// Prints the times for bench/README.md; --gtest_also_run_disabled_tests runs it.
TEST_F(PoolCostTest, DISABLED_Table) {
  const auto print = [](const char* what, int size, Duration took) {
    std::printf("| %s | %d | %lld |\n", what, size, static_cast<long long>(took.count()));
  };
  for (const int size : {50, 200, 800}) {
    print("release on a full node, pools that wait", size, ReleaseBesidePools(size));
  }
  for (const int size : {62, 250, 1000}) {
    print("release of all of 20 nodes, requests for all that wait", size,
          ReleaseBesideRequests(size));
  }
  for (const int size : {625, 2500, 10000}) {
    print("rejection, connections lent", size, RejectBesideLeases(size));
    print("release, reset and hand-out without descriptors, connections lent", size,
          PairBesideLeases(size));
    print("a catalog, roles that share a remote user", size, ReadCatalog(size));
  }
}

}  // namespace
}  // namespace polarx
