// New connections are warmed up, once nothing else is to be done; on the main thread.
#include <utility>

#include "core/pool_book.h"

namespace polarx {

bool PoolBook::WarmsUp(const Pool& pool, TimePoint now) const {
  return !settings_.warmup_query.empty() && now >= pool.warmup_blocked_until;
}

// Whoever needs one has it cold. Those of a node wait until it has opened all that it is to open:
// until then a warm-up would hold a connection up that is needed more.
void PoolBook::WarmUp(Pool* pool, TimePoint now) {
  const Node& node = *pool->node;
  const bool off = !WarmsUp(*pool, now);
  while (!pool->cold.empty()) {
    Slot* slot = FindSlot(pool->cold.front());
    const bool cold =
        slot != nullptr && slot->age.leases == 0 && slot->state == SlotState::kIdle && !off;
    if (cold && (!pool->queue.empty() || node.count(SlotState::kConnecting) > 0 ||
                 node.count(SlotState::kWarming) >= kParallelWarmups)) {
      return;
    }
    pool->cold.pop_front();
    if (cold) {
      slots_.Move(slot, SlotState::kWarming, now);
      driver_->Warm(slot);
    }
  }
}

void PoolBook::OnWarmupFailed(Slot* slot, const std::string& why, bool lost, TimePoint now) {
  Pool* pool = slot->pool;
  if (slot->state != SlotState::kWarming) {
    return;
  }
  MarkNode(pool->node);  // the next one's turn
  if (!std::exchange(pool->warmup_failed, true)) {
    surroundings_->Log("pooler.warmup_query failed on datanode \"" + pool->node->definition.name +
                           "\" as remote user \"" + pool->remote_user + "\": " + why,
                       "");
  }
  if (lost) {
    // Each further one might cost a connection as well.
    constexpr std::chrono::seconds kWithoutWarmup{60};
    pool->warmup_blocked_until = now + kWithoutWarmup;
    CloseSlot(slot, CloseReason::kError, now);
  } else {
    slots_.Move(slot, SlotState::kResetting, now);
    CloseReplaced(pool, now);
    NoteHurry(*pool);
    driver_->Reset(slot, {protocol::ReleaseKind::kInTransaction, false, {}});
  }
}

}  // namespace polarx
