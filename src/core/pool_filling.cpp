// The minima of the pools are kept up at the end of a turn; on the main thread.
#include <algorithm>
#include <vector>

#include "core/pool_book.h"

namespace polarx {

// Do the pool's minima ask for another slot, and may it be opened?
bool PoolBook::MustFill(const Pool& pool, TimePoint now) const {
  const Node& node = *pool.node;
  return node.fill_blocked_until <= now && CanOpen(pool, false, now) &&
         SlotsToOpen(pool.lasting_sizes(), node.limits, node.total(),
                     pool.InUse(now, settings_.pool_conn_keepalive)) > 0;
}

// What sessions have given back, or keep and do not use, may be enough.
void PoolBook::FillFromSessions(std::vector<Pool*>* filling, TimePoint now) {
  if (std::none_of(filling->begin(), filling->end(),
                   [&](const Pool* pool) { return MustFill(*pool, now); })) {
    return;
  }
  (void)CollectReturned(now);
  ServeDirty(filling, now);
  for (Pool* pool : *filling) {
    const bool in_use = pool->InUse(now, settings_.pool_conn_keepalive);
    const int reserve = in_use ? pool->node->limits.min_free : 0;
    while (Reserve(pool->lasting_sizes()) < reserve && MustFill(*pool, now)) {
      Slot* slot = TakeParked(pool, Which::kRested, now);
      if (slot == nullptr) {
        break;
      }
      ComeBack(slot, protocol::ReleaseKind::kClean, now);
    }
  }
  ServeDirty(filling, now);
}

// False: nothing is to be opened.
bool PoolBook::Fill(Pool* pool, TimePoint now) {
  if (starved_ || !MustFill(*pool, now) || !HasRoom(*pool)) {
    return false;
  }
  Open(pool, now);
  return true;
}

}  // namespace polarx
