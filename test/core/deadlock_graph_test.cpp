// Circles of waits, by tables: what is one, who is stopped, and that nobody else is.
#include "core/deadlock_graph.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>
#include <utility>

namespace polarx {
namespace {

using Pairs = std::vector<std::pair<int, int>>;

BegunAt At(int seconds) { return static_cast<BegunAt>(seconds) * 1000000; }

WaitEdge Edge(int waiter, int holder) { return {.waiter = waiter, .holder = holder, .node = {}}; }

std::vector<WaitEdge> Edges(const Pairs& pairs) {
  std::vector<WaitEdge> edges;
  for (const auto& [waiter, holder] : pairs) {
    edges.push_back(Edge(waiter, holder));
  }
  return edges;
}

struct Case {
  const char* name;
  Pairs waits;
  std::map<int, int> begun;  // process: second
  std::vector<int> victims;
  std::vector<std::size_t> lengths;
};

const Case kCases[] = {
    {"nobody waits", {}, {{1, 1}}, {}, {}},
    {"a line", {{1, 2}, {2, 3}, {3, 4}}, {{1, 1}, {2, 2}, {3, 3}, {4, 4}}, {}, {}},
    {"two wait for each other", {{1, 2}, {2, 1}}, {{1, 5}, {2, 4}}, {1}, {2}},
    {"the same, the other one is younger", {{1, 2}, {2, 1}}, {{1, 4}, {2, 5}}, {2}, {2}},
    {"of one age, always the same one", {{1, 2}, {2, 1}}, {{1, 4}, {2, 4}}, {2}, {2}},
    {"one waits for itself", {{1, 1}}, {{1, 1}}, {1}, {1}},
    {"three", {{1, 2}, {2, 3}, {3, 1}}, {{1, 1}, {2, 9}, {3, 3}}, {2}, {3}},
    {"whoever waits for a circle is not in it",
     {{1, 2}, {2, 1}, {3, 1}, {4, 3}},
     {{1, 1}, {2, 2}, {3, 8}, {4, 9}},
     {2},
     {2}},
    {"whom a circle waits for is not in it",
     {{1, 2}, {2, 1}, {1, 3}},
     {{1, 1}, {2, 2}, {3, 9}},
     {2},
     {2}},
    {"two circles apart",
     {{1, 2}, {2, 1}, {3, 4}, {4, 3}},
     {{1, 1}, {2, 2}, {3, 3}, {4, 4}},
     {2, 4},
     {2, 2}},
    {"two circles with one in common, who is the youngest: one victim",
     {{1, 2}, {2, 1}, {2, 3}, {3, 2}},
     {{1, 1}, {2, 9}, {3, 3}},
     {2},
     {2}},
    {"two circles with one in common, who is the oldest: a victim each",
     {{1, 2}, {2, 1}, {2, 3}, {3, 2}},
     {{1, 3}, {2, 1}, {3, 2}},
     {1, 3},
     {2, 2}},
    {"a short circle first: it breaks the long one, too",
     {{1, 2}, {2, 1}, {2, 3}, {3, 1}},
     {{1, 1}, {2, 2}, {3, 9}},
     {2},
     {2}},
    {"one that cannot be stopped is passed over", {{1, 2}, {2, 1}}, {{1, 1}}, {1}, {2}},
    {"nobody can be stopped", {{1, 2}, {2, 1}}, {}, {}, {}},
    {"the same wait twice", {{1, 2}, {1, 2}, {2, 1}, {2, 1}}, {{1, 1}, {2, 2}}, {2}, {2}},
};

TEST(DeadlockGraph, Table) {
  for (const Case& example : kCases) {
    SCOPED_TRACE(example.name);
    std::map<int, BegunAt> begun;
    for (const auto& [process, second] : example.begun) {
      begun[process] = At(second);
    }
    std::vector<int> victims;
    std::vector<std::size_t> lengths;
    for (const WaitCircle& circle : FindCircles(Edges(example.waits), begun)) {
      victims.push_back(circle.victim);
      lengths.push_back(circle.edges.size());
    }
    EXPECT_EQ(victims, example.victims);
    EXPECT_EQ(lengths, example.lengths);
  }
}

// At random: each circle is one, its victim is in it, and without the victims there is none.
TEST(DeadlockGraph, Random) {
  std::minstd_rand random(1);
  const auto below = [&](int most) {
    return std::uniform_int_distribution<int>(0, most - 1)(random);
  };
  for (int run = 0; run < 2000; ++run) {
    const int processes = 2 + below(8);
    std::map<int, BegunAt> begun;
    std::vector<WaitEdge> edges;
    for (int process = 1; process <= processes; ++process) {
      begun[process] = At(below(100));
    }
    for (int count = below(2 * processes); count > 0; --count) {
      edges.push_back(Edge(1 + below(processes), 1 + below(processes)));
    }
    std::set<int> victims;
    for (const WaitCircle& circle : FindCircles(edges, begun)) {
      ASSERT_FALSE(circle.edges.empty());
      bool has_victim = false;
      for (std::size_t i = 0; i < circle.edges.size(); ++i) {
        const WaitEdge& edge = circle.edges[i];
        ASSERT_EQ(edge.holder, circle.edges[(i + 1) % circle.edges.size()].waiter);
        ASSERT_NE(std::find(edges.begin(), edges.end(), edge), edges.end());
        ASSERT_LE(begun.at(edge.waiter), begun.at(circle.victim));
        has_victim = has_victim || edge.waiter == circle.victim;
      }
      ASSERT_TRUE(has_victim);
      ASSERT_TRUE(victims.insert(circle.victim).second);
    }
    std::erase_if(edges, [&](const WaitEdge& edge) { return victims.contains(edge.waiter); });
    ASSERT_TRUE(FindCircles(edges, begun).empty());
  }
}

// A thousand wait for one row, each for all before it, behind a circle of two.
TEST(DeadlockGraph, LongLine) {
  std::map<int, BegunAt> begun;
  std::vector<WaitEdge> edges = Edges({{1, 2}, {2, 1}});
  for (int process = 1; process <= 1000; ++process) {
    begun[process] = At(process);
    for (int before = 1; before < process && process > 2; ++before) {
      edges.push_back(Edge(process, before));
    }
  }
  const std::vector<WaitCircle> circles = FindCircles(edges, begun);
  ASSERT_EQ(circles.size(), 1u);
  EXPECT_EQ(circles.front().victim, 2);
}

TEST(DeadlockGraph, Description) {
  const WaitCircle circle = {
      .edges =
          {{.waiter = 10, .holder = 11, .node = "dn1", .remote_waiter = 20, .remote_holder = 21},
           {.waiter = 11, .holder = 10, .node = {}}},
      .victim = 11};
  EXPECT_EQ(DescribeCircle(circle),
            "Process 10 waits on datanode \"dn1\", there process 20; blocked by process 11, there "
            "process 21.\n"
            "Process 11 waits on the coordinator; blocked by process 10.");
}

}  // namespace
}  // namespace polarx
