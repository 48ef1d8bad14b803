// Who waits for whom, over all nodes and on the coordinator: circles of waits, and which session of
// a circle is to be stopped. Pure functions over values.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/time.h"

namespace polarx {

// A session, by its process on the coordinator, waits for a lock that another one is in the way of.
struct WaitEdge {
  int waiter = 0;
  int holder = 0;    // the same one: it waits for itself, on another connection
  std::string node;  // where; "": on the coordinator
  // Their processes on the node, and the leases that these are lent by; 0 on the coordinator.
  int remote_waiter = 0;
  int remote_holder = 0;
  std::uint64_t waiting_lease = 0;
  std::uint64_t holding_lease = 0;

  auto operator<=>(const WaitEdge&) const = default;  // NOLINT(modernize-use-nullptr)
};

struct WaitCircle {
  std::vector<WaitEdge> edges;  // the holder of each is the waiter of the next
  int victim = 0;               // one of their processes
};

// Finds circles, short ones first, until each circle has a victim: of its processes that are in
// `begun`, which says when their transactions began, the one that began last. What waits for a
// victim waits no more. Circles of which no process is in `begun` are left as they are.
std::vector<WaitCircle> FindCircles(std::vector<WaitEdge> edges,
                                    const std::map<int, BegunAt>& begun);

// Returns one line for each wait of the circle, as PostgreSQL's own detector describes them.
std::string DescribeCircle(const WaitCircle& circle);

}  // namespace polarx
