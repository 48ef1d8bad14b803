// How many connections a pool should have, and how long one lives: pure rules over numbers.
#pragma once

#include "core/settings.h"
#include "core/time.h"

namespace polarx {

// Connects under way to one node at a time.
inline constexpr int kParallelConnects = 8;
// Warm-ups under way per node: they are not urgent, and a connection that is warmed up is away.
inline constexpr int kParallelWarmups = 2;

struct Sizes {
  int total = 0;  // all slots of the pool
  int idle = 0;
  int connecting = 0;  // warming included
  int resetting = 0;   // checking included
};

struct Limits {
  int max_size = 0;  // of the node
  int min_size = 0;
  int min_free = 0;
};

// How many slots to open without a request. `node_total`: slots of the node over all pools;
// `in_use`: something was acquired within pool_conn_keepalive. min_size is pre-opened for at most
// half of max_size; min_free counts while in use, up to max_size.
int SlotsToOpen(const Sizes& pool, const Limits& limits, int node_total, bool in_use);

// Idle ones, and those that will be without an opened connection: what min_free_size asks for.
int Reserve(const Sizes& pool);

// How many of `unused` idle slots (those idle for longer than pool_conn_keepalive) to close: down
// to min_size, and while in use to min_free of them. Never below what SlotsToOpen would reopen.
int SlotsToClose(const Sizes& pool, const Limits& limits, int unused, bool in_use);

// Of pool_session_max_lifetime: when a connection is to be replaced, 2 to 10 % ahead of its end, so
// that the new one is open by then; `jitter` in [0, 1).
Duration JitteredLifetime(std::chrono::seconds lifetime, double jitter);

// Of pool_session_context_check_gap: less up to a quarter; `jitter` in [0, 1).
Duration JitteredGap(std::chrono::seconds gap, double jitter);

}  // namespace polarx
