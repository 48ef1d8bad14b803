// What administrators ask for: clean, pause, ping, check, statistics; on the main thread.
#include <algorithm>

#include "core/pool_book.h"

namespace polarx {
int PoolBook::Clean(NodeId node, const std::string& remote_user, TimePoint now) {
  int count = 0;
  for (auto& [id, pool] : pools_) {
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
  if (which == 0) {
    all_paused_ = paused;
    paused_.clear();
  } else if (paused) {
    paused_.insert(which);
  } else {
    paused_.erase(which);
  }
  for (auto& [id, node] : nodes_) {
    if (which == 0 || id == which) {
      node->paused = paused;
      Publish(node.get());
      for (Pool* pool : node->pools) {
        if (paused) {
          TakeAllParked(pool, now);
        }
      }
      MarkNode(node.get());
    }
  }
  queue_.NotePauses(now);
}

void PoolBook::ResetStats() {
  counters_ = {};
  for (auto& [id, pool] : pools_) {
    pool->counters = pool->printed_counters = {};
    pool->acquire_time = pool->hold_time = pool->printed_acquire_time = {};
  }
}

bool PoolBook::Matches(std::span<const NodeDefinition> nodes) const {
  std::size_t members = 0;
  for (const auto& [id, node] : nodes_) {
    members += !node->obsolete && node->definition.member ? 1 : 0;
  }
  return members == nodes.size() &&
         std::all_of(nodes.begin(), nodes.end(), [this](const NodeDefinition& wanted) {
           const auto found = nodes_.find(wanted.id);
           return found != nodes_.end() && !found->second->obsolete &&
                  found->second->definition == wanted;
         });
}

void PoolBook::SetSurvivors(const std::map<NodeId, int>& survivors) {
  if (survivors == survivors_) {
    return;
  }
  survivors_ = survivors;
  for (auto& [id, node] : nodes_) {
    const auto found = survivors_.find(id);
    node->survivors = found == survivors_.end() ? 0 : found->second;
    MarkNode(node.get());
  }
}

}  // namespace polarx
