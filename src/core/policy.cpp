// How many connections a pool should have, and how long one lives; pure functions.
#include "core/policy.h"

#include <algorithm>

namespace polarx {

// Slots on their way back count: they will be idle without an opened connection.
int Reserve(const Sizes& pool) { return pool.idle + pool.connecting + pool.resetting; }

int SlotsToOpen(const Sizes& pool, const Limits& limits, int node_total, bool in_use) {
  const int for_minimum = std::min(limits.min_size - pool.total, limits.max_size / 2 - node_total);
  int for_reserve = 0;
  if (in_use) {
    for_reserve = std::min(limits.min_free - Reserve(pool), limits.max_size - node_total);
  }
  return std::max({for_minimum, for_reserve, 0});
}

int SlotsToClose(const Sizes& pool, const Limits& limits, int unused, bool in_use) {
  int surplus = std::min(unused, pool.total - limits.min_size);
  if (in_use) {
    surplus = std::min(surplus, unused - limits.min_free);  // what is in use is no reserve
  }
  return std::max(surplus, 0);
}

Duration JitteredLifetime(std::chrono::seconds lifetime, double jitter) {
  const Duration whole = lifetime;
  return whole - std::chrono::duration_cast<Duration>(whole * (0.02 + 0.08 * jitter));
}

Duration JitteredGap(std::chrono::seconds gap, double jitter) {
  const Duration whole = gap;
  return whole - std::chrono::duration_cast<Duration>(whole * (jitter / 4));
}

}  // namespace polarx
