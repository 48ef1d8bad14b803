// What administrators ask for: clean, pause, ping, check, statistics; on the main thread.
#include "core/pool_book.h"

namespace polarx {
int PoolBook::Clean(NodeId node, const std::string& remote_user, TimePoint now) {
  int count = 0;
  for (const auto& [id, pool] : directory_.pools()) {
    if ((node != 0 && pool->node->definition.id != node) ||
        (!remote_user.empty() && pool->remote_user != remote_user)) {
      continue;
    }
    count += pool->total() - pool->count(SlotState::kClosing);
    DoomAll(pool.get(), CloseReason::kCleaned, now);
  }
  return count;
}

// Idle slots close now, all others when they come back.
void PoolBook::DoomAll(Pool* pool, CloseReason reason, TimePoint now) {
  std::list<Slot>& idle = pool->list(SlotState::kIdle);
  while (!idle.empty()) {
    CloseSlot(&idle.front(), reason, now);
  }
  for (SlotState state : {SlotState::kConnecting, SlotState::kWarming, SlotState::kLeased,
                          SlotState::kResetting, SlotState::kChecking}) {
    std::list<Slot>& slots = pool->list(state);
    for (auto slot = slots.begin(); slot != slots.end();) {
      Doom(&*slot++, reason, now);
    }
  }
}

// It closes when it comes back; at once if it is parked.
void PoolBook::Doom(Slot* slot, CloseReason reason, TimePoint now) {
  slot->doomed = reason;
  if (slot->state == SlotState::kLeased) {
    CallBack(slot, now);
  }
}

// The leased slot comes back as soon as its session can give it back.
void PoolBook::CallBack(Slot* slot, TimePoint now) {
  if (TakeOrBar(slot, now)) {
    ComeBack(slot, protocol::ReleaseKind::kClean, now);
  } else if (!slot->lease.recalled) {
    slot->lease.recalled = true;
    events_->Recall(*slot);
  }
}

Slot* PoolBook::TakeForPing(Pool* pool, TimePoint now) {
  Slot* slot = LiveIdle(pool, now);
  if (slot != nullptr) {
    slots_.Move(slot, SlotState::kChecking, now);
    MarkDirty(pool);
  }
  return slot;
}

void PoolBook::Pause(NodeId which, bool paused, TimePoint now) {
  for (Node* node : directory_.SetPaused(which, paused)) {
    Publish(node);
    for (Pool* pool : node->pools) {
      if (paused) {
        TakeAllParked(pool, now);
      }
    }
    MarkNode(node);
  }
  queue_.NotePauses(now);
}

void PoolBook::ResetStats() {
  counters_ = {};
  for (const auto& [id, pool] : directory_.pools()) {
    pool->counters = pool->printed_counters = {};
    pool->acquire_time = pool->hold_time = pool->printed_acquire_time = {};
  }
}

void PoolBook::SetSurvivors(const std::map<NodeId, int>& survivors) {
  for (Node* node : directory_.SetSurvivors(survivors)) {
    MarkNode(node);
  }
}

}  // namespace polarx
