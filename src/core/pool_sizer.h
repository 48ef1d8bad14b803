// How many slots the pools should have without a request: minima, reserve, keepalive, warm-up. Says
// how many and which; others open and close. On the main thread.
#pragma once

#include "core/pool.h"
#include "core/settings.h"

namespace polarx {

class PoolSizer {
 public:
  explicit PoolSizer(const Settings& settings) { Apply(settings); }

  void Apply(const Settings& settings);

  // Was something acquired from the pool within pool_conn_keepalive?
  bool IsInUse(const Pool& pool, TimePoint now) const;
  // Connections that should be idle in the pool: min_free_size while it is in use.
  int ReserveOf(const Pool& pool, TimePoint now) const;

  // How many slots the pool's minima ask for, beside those that it has and those that are coming.
  // None while its node's are not to be refilled. Whether a connect may be tried now is not looked
  // at.
  int CountMissing(const Pool& pool, TimePoint now) const;
  // How many of the pool's idle expiring slots its minima can do without. They serve until others
  // can stand in for them; of a full node, which has no room for both, they go one by one.
  int CountDispensable(const Pool& pool, TimePoint now) const;
  // Should an expiring slot of the pool that comes back be kept in reserve, beside those that are?
  bool NeedsExpiring(const Pool& pool, TimePoint now) const;
  // How many of the pool's idle slots, longest unused first, have been unused for
  // pool_conn_keepalive and are not asked for by its minima.
  int CountUnused(const Pool& pool, TimePoint now) const;

  // What was given up for tickets of the node is not refilled while such tickets come, else the
  // pools of a full node would take slots from one another for ever.
  void BlockRefill(Node* node, TimePoint now) const;
  static bool IsRefillBlocked(const Node& node, TimePoint now) {
    return node.fill_blocked_until > now;
  }

  // Are new connections of the pool warmed up before they are idle reserve?
  bool WarmsUp(const Pool& pool, TimePoint now) const;
  // A warm-up has cost a connection: each further one might do so as well for a while.
  static void BlockWarmup(Pool* pool, TimePoint now);
  // May another connection of the pool be warmed up? A node's wait until it has opened all that it
  // is to open: until then a warm-up would hold a connection up that is needed more.
  static bool MayWarmNow(const Pool& pool);

 private:
  int CountNeeded(const Pool& pool, TimePoint now) const;
  static bool HasToMakeRoom(const Pool& pool);
  bool IsUnused(const Slot& slot, TimePoint now) const;

  std::chrono::seconds keepalive_{};
  bool has_warmup_ = false;
};

}  // namespace polarx
