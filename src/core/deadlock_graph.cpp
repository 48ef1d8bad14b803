// Circles of waits are found here; pure functions.
#include "core/deadlock_graph.h"

#include <algorithm>
#include <deque>
#include <unordered_map>
#include <unordered_set>
#include <utility>

namespace polarx {
namespace {

using End = int WaitEdge::*;

// Leaves edges out from which no way leads to a circle, in the direction from `from` to `to`. Many
// may wait for one row in a line, each for all that are before it.
void Trim(std::vector<WaitEdge>* edges, End from, End to) {
  std::unordered_map<int, int> ways;  // by process: how many
  std::unordered_map<int, std::vector<int>> before;
  for (const WaitEdge& edge : *edges) {
    ++ways[edge.*from];
    ways.try_emplace(edge.*to, 0);
    before[edge.*to].push_back(edge.*from);
  }
  std::vector<int> ends;
  for (const auto& [process, count] : ways) {
    if (count == 0) {
      ends.push_back(process);
    }
  }
  std::unordered_set<int> out;
  while (!ends.empty()) {
    const int end = ends.back();
    ends.pop_back();
    out.insert(end);
    for (const int process : before[end]) {
      if (--ways.at(process) == 0) {
        ends.push_back(process);
      }
    }
  }
  std::erase_if(*edges, [&](const WaitEdge& edge) { return out.contains(edge.*to); });
}

using EdgesByWaiter = std::map<int, std::vector<WaitEdge>>;

// Returns the shortest circle that the process is in, as its edges; empty if it is in none.
std::vector<WaitEdge> ShortestFrom(int start, const EdgesByWaiter& graph) {
  std::map<int, const WaitEdge*> reached_by;
  std::deque<int> to_visit{start};
  while (!to_visit.empty() && !reached_by.contains(start)) {
    const auto found = graph.find(to_visit.front());
    to_visit.pop_front();
    if (found == graph.end()) {
      continue;
    }
    for (const WaitEdge& edge : found->second) {
      if (reached_by.try_emplace(edge.holder, &edge).second) {
        to_visit.push_back(edge.holder);
      }
    }
  }
  std::vector<WaitEdge> circle;
  if (reached_by.contains(start)) {
    int at = start;
    do {
      circle.push_back(*reached_by.at(at));
      at = circle.back().waiter;
    } while (at != start);
    std::reverse(circle.begin(), circle.end());
  }
  return circle;
}

// Returns the one that began last, of several the last process; 0: none of them is in `begun`.
int VictimOf(const std::vector<WaitEdge>& circle, const std::map<int, BegunAt>& begun) {
  std::pair<BegunAt, int> last{0, 0};
  for (const WaitEdge& edge : circle) {
    if (const auto found = begun.find(edge.waiter); found != begun.end()) {
      last = std::max(last, {found->second, found->first});
    }
  }
  return last.second;
}

// Returns the shortest circle that has a victim; without edges: there is none.
WaitCircle Shortest(const EdgesByWaiter& graph, const std::map<int, BegunAt>& begun) {
  WaitCircle shortest;
  for (const auto& [process, since] : begun) {
    if (std::vector<WaitEdge> circle = ShortestFrom(process, graph);
        !circle.empty() && (shortest.edges.empty() || circle.size() < shortest.edges.size())) {
      shortest.edges = std::move(circle);
    }
  }
  shortest.victim = VictimOf(shortest.edges, begun);
  return shortest;
}

}  // namespace

std::vector<WaitCircle> FindCircles(std::vector<WaitEdge> edges,
                                    const std::map<int, BegunAt>& begun) {
  Trim(&edges, &WaitEdge::waiter, &WaitEdge::holder);
  Trim(&edges, &WaitEdge::holder, &WaitEdge::waiter);
  std::sort(edges.begin(), edges.end());
  EdgesByWaiter graph;
  for (WaitEdge& edge : edges) {
    graph[edge.waiter].push_back(std::move(edge));
  }
  std::vector<WaitCircle> circles;
  for (WaitCircle circle = Shortest(graph, begun); !circle.edges.empty();
       circle = Shortest(graph, begun)) {
    graph.erase(circle.victim);
    circles.push_back(std::move(circle));
  }
  return circles;
}

std::string DescribeCircle(const WaitCircle& circle) {
  std::string text;
  const auto add = [&text](const auto&... parts) { (text.append(parts), ...); };
  for (const WaitEdge& edge : circle.edges) {
    const std::string waiter = std::to_string(edge.waiter);
    const std::string holder = std::to_string(edge.holder);
    add(text.empty() ? "" : "\n", "Process ", waiter);
    if (edge.node.empty()) {
      add(" waits on the coordinator; blocked by process ", holder, ".");
    } else {
      add(" waits on datanode \"", edge.node, "\", there process ");
      add(std::to_string(edge.remote_waiter), "; blocked by process ", holder);
      add(", there process ", std::to_string(edge.remote_holder), ".");
    }
  }
  return text;
}

}  // namespace polarx
