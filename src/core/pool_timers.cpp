// What is done once it is due for single slots: expiry, the memory check, the warning of a long
// lease; on the main thread.
#include <cassert>
#include <utility>

#include "core/pool_book.h"

namespace polarx {
namespace {

std::string Megabytes(std::int64_t bytes) { return std::to_string((bytes + 524288) >> 20) + " MB"; }

}  // namespace

void PoolBook::FireTimers(TimePoint now) {
  while (const auto id = upkeep_.TakeDue(now)) {
    Slot* slot = slots_.Find(*id);
    DoWhatIsDue(slot, now);
    upkeep_.Arm(*slot);
  }
}

// The slot may be closing afterwards.
void PoolBook::DoWhatIsDue(Slot* slot, TimePoint now) {
  switch (upkeep_.WhatIsDue(*slot, now)) {
    case SlotUpkeep::Due::kNothing:
      break;
    case SlotUpkeep::Due::kExpiry:
      slots_.SetExpiring(slot, true);
      MarkDirty(slot->pool);
      if (slot->state == SlotState::kLeased) {
        CallBack(slot, now);
      }
      break;
    case SlotUpkeep::Due::kEnd:
      CloseSlot(slot, CloseReason::kLifetime, now);
      break;
    case SlotUpkeep::Due::kCheck:
      CheckMemory(slot, now);
      break;
    case SlotUpkeep::Due::kWarning:
      WarnOfLongLease(slot, now);
      break;
  }
}

// Idle slots of a pool are measured one at a time: the others are for users. A leased one is
// measured when it comes back: at once if it is parked.
void PoolBook::CheckMemory(Slot* slot, TimePoint now) {
  if (slot->state == SlotState::kLeased) {
    if (TakeOrBar(slot, now)) {
      ComeBack(slot, protocol::ReleaseKind::kClean, now);
    } else {
      slot->parking.barred = true;
    }
  } else if (slot->pool->count(SlotState::kChecking) > 0) {
    upkeep_.PostponeCheck(slot, now);
  } else {
    slots_.Move(slot, SlotState::kChecking, now);
    MarkDirty(slot->pool);
    driver_->Measure(slot);
  }
}

// One that is parked is not held, and one that was taken again not for so long.
void PoolBook::WarnOfLongLease(Slot* slot, TimePoint now) {
  if (LeaseTable::CountRetakes(slot) || slot->parked()) {
    slot->lease.held_since = now;
    return;
  }
  slot->lease.warned = true;
  events_->LongLease(*slot, now - slot->lease.held_since);
}

void PoolBook::OnMeasured(Slot* slot, std::optional<std::int64_t> bytes, TimePoint now) {
  assert(slot->state == SlotState::kResetting || slot->state == SlotState::kChecking);
  Pool* pool = slot->pool;
  Node* node = pool->node;
  if (!bytes.has_value() && !std::exchange(node->memory_hidden, true)) {
    surroundings_->Log(
        "memory of sessions on datanode \"" + node->definition.name + "\" cannot be measured",
        "Remote user \"" + pool->remote_user +
            "\" may not read pg_backend_memory_contexts there, and the extension "
            "polarx_pooler is not installed.");
  }
  if (upkeep_.NoteMemory(slot, bytes, now)) {
    surroundings_->Log(
        "connection to datanode \"" + node->definition.name +
            "\" is closed: its session, process " + std::to_string(slot->connection.remote_pid) +
            " of remote user \"" + pool->remote_user + "\", uses " + Megabytes(*bytes),
        "pooler.pool_session_memory_limit is " + Megabytes(upkeep_.memory_limit()) + ".");
    CloseSlot(slot, CloseReason::kMemory, now);
  } else {
    Settle(slot, now);
  }
}

}  // namespace polarx
