// How many slots the pools should have without a request; on the main thread.
#include "core/pool_sizer.h"

#include <algorithm>
#include <cassert>

namespace polarx {

void PoolSizer::Apply(const Settings& settings) {
  keepalive_ = settings.pool_conn_keepalive;
  has_warmup_ = !settings.warmup_query.empty();
}

bool PoolSizer::IsInUse(const Pool& pool, TimePoint now) const {
  return pool.ever_acquired &&
         (keepalive_ < std::chrono::seconds(0) || now - pool.last_acquired < keepalive_);
}

int PoolSizer::ReserveOf(const Pool& pool, TimePoint now) const {
  return IsInUse(pool, now) ? pool.node->limits.min_free : 0;
}

int PoolSizer::CountMissing(const Pool& pool, TimePoint now) const {
  const Node& node = *pool.node;
  if (pool.obsolete || IsRefillBlocked(node, now)) {
    return 0;
  }
  return SlotsToOpen(pool.lasting_sizes(), node.limits, node.lasting_total(), IsInUse(pool, now));
}

// Expiring slots that have to serve until others can stand in for them.
int PoolSizer::CountNeeded(const Pool& pool, TimePoint now) const {
  if (pool.obsolete) {
    return 0;
  }
  const Sizes settled = pool.settled_sizes();
  const int coming = pool.lasting_sizes().total - settled.total;
  return SlotsToOpen(settled, pool.node->limits, pool.node->lasting_total() - coming,
                     IsInUse(pool, now));
}

// Is the node full, and is neither room for another slot nor such a slot under way?
bool PoolSizer::HasToMakeRoom(const Pool& pool) {
  const Node& node = *pool.node;
  return node.total() >= node.limits.max_size && node.count(SlotState::kClosing) == 0 &&
         pool.lasting_sizes().total == pool.settled_sizes().total;
}

int PoolSizer::CountDispensable(const Pool& pool, TimePoint now) const {
  const int expiring = static_cast<int>(pool.expiring_idle().size());
  if (expiring == 0) {
    return 0;
  }
  const int dispensable = std::max(expiring - CountNeeded(pool, now), HasToMakeRoom(pool) ? 1 : 0);
  assert(dispensable >= 0 && dispensable <= expiring);
  return dispensable;
}

bool PoolSizer::NeedsExpiring(const Pool& pool, TimePoint now) const {
  const int expiring = static_cast<int>(pool.expiring_idle().size());
  return CountNeeded(pool, now) > expiring && !HasToMakeRoom(pool);
}

bool PoolSizer::IsUnused(const Slot& slot, TimePoint now) const {
  return keepalive_ >= std::chrono::seconds(0) && now - slot.idle_since >= keepalive_;
}

int PoolSizer::CountUnused(const Pool& pool, TimePoint now) const {
  const std::list<Slot>& idle = pool.list(SlotState::kIdle);
  int unused = 0;
  for (auto slot = idle.rbegin(); slot != idle.rend() && IsUnused(*slot, now); ++slot) {
    ++unused;
  }
  Sizes sizes = pool.lasting_sizes();
  sizes.total -= pool.count(SlotState::kClosing);
  return SlotsToClose(sizes, pool.node->limits, unused, IsInUse(pool, now));
}

void PoolSizer::BlockRefill(Node* node, TimePoint now) const {
  constexpr std::chrono::seconds kWithoutKeepalive{60};
  node->fill_blocked_until =
      now + (keepalive_ < std::chrono::seconds(0) ? kWithoutKeepalive : keepalive_);
}

bool PoolSizer::WarmsUp(const Pool& pool, TimePoint now) const {
  return has_warmup_ && now >= pool.warmup_blocked_until;
}

void PoolSizer::BlockWarmup(Pool* pool, TimePoint now) {
  constexpr std::chrono::seconds kWithoutWarmup{60};
  pool->warmup_blocked_until = now + kWithoutWarmup;
}

bool PoolSizer::MayWarmNow(const Pool& pool) {
  const Node& node = *pool.node;
  return pool.queue.empty() && node.count(SlotState::kConnecting) == 0 &&
         node.count(SlotState::kWarming) < kParallelWarmups;
}

}  // namespace polarx
