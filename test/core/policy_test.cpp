// The number rules of a pool, by tables.
#include "core/policy.h"

#include <gtest/gtest.h>

namespace polarx {
namespace {

constexpr Limits kDefaults{.max_size = 300, .min_size = 5, .min_free = 5};

struct OpenCase {
  const char* what;
  Sizes pool;
  Limits limits;
  int node_total;
  bool in_use;
  int expected;
};

TEST(SlotsToOpen, FollowsTheMinimaAndTheLimits) {
  const OpenCase cases[] = {
      {"an empty pool at rest is brought to its minimum", {}, kDefaults, 0, false, 5},
      {"a pool at its minimum is left alone", {5, 5, 0, 0}, kDefaults, 5, false, 0},
      {"connects under way count", {5, 2, 3, 0}, kDefaults, 5, false, 0},
      {"in use, leased slots are replaced in reserve", {5, 3, 0, 0}, kDefaults, 5, true, 2},
      {"slots on their way back count as reserve", {5, 3, 0, 2}, kDefaults, 5, true, 0},
      {"the reserve ends at the node's limit", {8, 0, 0, 0}, {10, 0, 5}, 8, true, 2},
      {"minima fill half of the node at most", {0, 0, 0, 0}, {10, 8, 0}, 3, false, 2},
      {"half of one is none", {}, {1, 5, 5}, 0, false, 0},
      {"the reserve may use the whole node", {1, 0, 0, 0}, {2, 0, 5}, 1, true, 1},
      {"a full node opens nothing", {10, 0, 0, 0}, {10, 20, 20}, 10, true, 0},
  };
  for (const OpenCase& c : cases) {
    EXPECT_EQ(SlotsToOpen(c.pool, c.limits, c.node_total, c.in_use), c.expected) << c.what;
  }
}

struct CloseCase {
  const char* what;
  Sizes pool;
  Limits limits;
  int unused;
  bool in_use;
  int expected;
};

TEST(SlotsToClose, GoesDownToTheMinimaAndNoFurther) {
  const CloseCase cases[] = {
      {"at rest down to the minimum", {40, 40, 0, 0}, kDefaults, 40, false, 35},
      {"only what is unused for long", {40, 40, 0, 0}, kDefaults, 7, false, 7},
      {"leased slots count for the minimum", {10, 5, 0, 0}, kDefaults, 5, false, 5},
      {"in use the reserve stays", {40, 8, 0, 0}, kDefaults, 8, true, 3},
      {"at the minimum nothing", {5, 5, 0, 0}, kDefaults, 5, false, 0},
      {"below the minimum nothing", {3, 3, 0, 0}, kDefaults, 3, false, 0},
      {"no minimum: all", {4, 4, 0, 0}, {10, 0, 0}, 4, false, 4},
  };
  for (const CloseCase& c : cases) {
    EXPECT_EQ(SlotsToClose(c.pool, c.limits, c.unused, c.in_use), c.expected) << c.what;
  }
}

TEST(SlotsToClose, NeverClosesWhatSlotsToOpenWouldReopen) {
  for (int total = 0; total <= 30; ++total) {
    for (int leased = 0; leased <= total; ++leased) {
      for (int min_size : {0, 3, 5, 20}) {
        for (int min_free : {0, 2, 5, 20}) {
          for (bool in_use : {false, true}) {
            const Limits limits{.max_size = 30, .min_size = min_size, .min_free = min_free};
            Sizes pool{.total = total, .idle = total - leased};
            const int closed = SlotsToClose(pool, limits, pool.idle, in_use);
            pool.total -= closed;
            pool.idle -= closed;
            if (closed > 0) {
              EXPECT_EQ(SlotsToOpen(pool, limits, pool.total, in_use), 0)
                  << total << " " << leased << " " << min_size << " " << min_free << " " << in_use;
            }
          }
        }
      }
    }
  }
}

TEST(JitteredLifetime, TakesOffATenthAtMostAndLeavesTimeToReplace) {
  using std::chrono::seconds;
  EXPECT_EQ(JitteredLifetime(seconds(300), 0), seconds(294));
  EXPECT_EQ(JitteredLifetime(seconds(300), 0.5), seconds(282));
  EXPECT_GT(JitteredLifetime(seconds(300), 0.999), seconds(270));
}

}  // namespace
}  // namespace polarx
