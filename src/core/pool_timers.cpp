// What becomes due for single slots: replacement, the memory check, the warning of a long lease; on
// the main thread.
//
// A slot has at most one timer. It may go off too early, for a slot that has changed its state is
// not looked up: it is then set anew.
#include <algorithm>
#include <cassert>

#include "core/pool_book.h"

namespace polarx {
namespace {

constexpr Duration kRenewAgain = std::chrono::milliseconds(100);
constexpr Duration kRenewGap = std::chrono::milliseconds(10);  // between those of one pool
constexpr Duration kCheckAgain = std::chrono::milliseconds(20);

// When a slot has to look again: `gap` behind the last one of its pool.
TimePoint TakePlace(TimePoint* last, Duration gap, TimePoint now) {
  *last = std::max(*last, now) + gap;
  return *last;
}

std::string Megabytes(std::int64_t bytes) { return std::to_string((bytes + 524288) >> 20) + " MB"; }

}  // namespace

TimePoint PoolBook::EndOf(const Slot& slot) const {
  return slot.age.created_at + settings_.pool_session_max_lifetime;
}

TimePoint PoolBook::DueTime(const Slot& slot) const {
  if (slot.state == SlotState::kIdle) {
    return std::min(slot.age.renew_at, slot.age.check_at);
  }
  if (slot.state != SlotState::kLeased) {
    return kNever;
  }
  const TimePoint expiry = slot.doomed == CloseReason::kNone ? slot.age.expires_at : kNever;
  const bool warns = !slot.lease.warned && settings_.lease_warn_after > std::chrono::seconds(0);
  const TimePoint check =
      slot.parking.cell != nullptr && !slot.parking.barred ? slot.age.check_at : kNever;
  return std::min(
      warns ? std::min(expiry, slot.lease.held_since + settings_.lease_warn_after) : expiry, check);
}

void PoolBook::Arm(Slot* slot) { timers_.SetEarlier(slot->id, DueTime(*slot)); }

// From the settings that hold now.
void PoolBook::SetTimes(Slot* slot) {
  EndReplacement(slot);
  slot->age.expires_at = slot->age.renew_at =
      slot->age.created_at + JitteredLifetime(settings_.pool_session_max_lifetime, Jitter());
  slot->age.check_at =
      slot->age.checked_at + JitteredGap(settings_.pool_session_context_check_gap, Jitter());
}

void PoolBook::FireTimers(TimePoint now) {
  while (const auto slot = timers_.TakeDue(now)) {
    Fire(slots_.Find(*slot), now);
  }
}

// The slot may be closing afterwards.
void PoolBook::Fire(Slot* slot, TimePoint now) {
  if (slot->state == SlotState::kLeased) {
    if (now >= slot->age.expires_at && slot->doomed == CloseReason::kNone) {
      if (!slot->age.replaced && NeedsReplacement(*slot, now) && CanOpen(*slot->pool, false, now) &&
          HasRoom(*slot->pool)) {
        Replace(slot, now);
      }
      Doom(slot, CloseReason::kLifetime, now);
    } else if (now >= slot->age.check_at && slot->parking.cell != nullptr &&
               !slot->parking.barred) {
      CallForCheck(slot, now);
    }
    if (slot->state == SlotState::kLeased) {
      WarnOfLongLease(slot, now);
    }
  } else if (slot->state == SlotState::kIdle) {
    if (now >= slot->age.renew_at) {
      Renew(slot, now);
    } else if (now >= slot->age.check_at) {
      // One at a time: the others are for users.
      if (slot->pool->count(SlotState::kChecking) > 0) {
        slot->age.check_at = TakePlace(&slot->pool->last_check, kCheckAgain, now);
      } else {
        slots_.Move(slot, SlotState::kChecking, now);
        MarkDirty(slot->pool);
        driver_->Measure(slot);
      }
    }
  }
  if (slot->state == SlotState::kLeased || slot->state == SlotState::kIdle) {
    Arm(slot);
  }
}

// Its memory is measured when it comes back: at once if it is parked.
void PoolBook::CallForCheck(Slot* slot, TimePoint now) {
  if (!TakeBack(slot, now)) {
    slot->parking.barred = true;
    return;
  }
  ComeBack(slot, protocol::ReleaseKind::kClean, now);
}

// One that is parked is not held, and one that was taken again not for so long.
void PoolBook::WarnOfLongLease(Slot* slot, TimePoint now) {
  if (slot->lease.warned || settings_.lease_warn_after <= std::chrono::seconds(0) ||
      now - slot->lease.held_since < settings_.lease_warn_after) {
    return;
  }
  const std::uint32_t known = slot->parking.retakes;
  CountRetakes(slot);
  if (slot->parked() || known != slot->parking.retakes) {
    slot->lease.held_since = now;
    return;
  }
  slot->lease.warned = true;
  events_->LongLease(*slot, now - slot->lease.held_since);
}

// --- replacement --------------------------------------------------------------------------------

// Would the pool without the slot have to open another one?
bool PoolBook::NeedsReplacement(const Slot& slot, TimePoint now) const {
  const Pool& pool = *slot.pool;
  Sizes sizes = pool.lasting_sizes();
  --sizes.total;
  sizes.idle -= slot.state == SlotState::kIdle ? 1 : 0;
  return !pool.obsolete && SlotsToOpen(sizes, pool.node->limits, pool.node->total() - 1,
                                       pool.InUse(now, settings_.pool_conn_keepalive)) > 0;
}

void PoolBook::Replace(Slot* slot, TimePoint now) {
  slots_.SetReplaced(slot, true);
  Open(slot->pool, now);
}

void PoolBook::EndReplacement(Slot* slot) {
  slots_.SetReplaced(slot, false);
  slot->age.replacement_ready = false;
}

// An expired lease that comes back before its replacement is ready is of use until then.
bool PoolBook::AwaitsReplacement(const Slot& slot, TimePoint now) const {
  return slot.doomed == CloseReason::kLifetime && slot.age.replaced &&
         !slot.age.replacement_ready && now < EndOf(slot);
}

// An idle slot has expired: it stays until the one that replaces it is open, if there has to be one
// and there is room for both, but not beyond its lifetime.
void PoolBook::Renew(Slot* slot, TimePoint now) {
  Pool* pool = slot->pool;
  const Node& node = *pool->node;
  const bool full = node.total() >= node.limits.max_size;
  const bool needed = slot->age.replaced || (NeedsReplacement(*slot, now) && !full);
  if (now >= EndOf(*slot) || !needed) {
    CloseSlot(slot, CloseReason::kLifetime, now);
  } else if (slot->age.replaced) {
    slot->age.renew_at = EndOf(*slot);
  } else if (CanOpen(*pool, false, now) && HasRoom(*pool)) {
    Replace(slot, now);
    slot->age.renew_at = EndOf(*slot);
  } else {
    const TimePoint place = TakePlace(&pool->last_renewal, kRenewGap, now);
    slot->age.renew_at = std::min(std::max(now + kRenewAgain, place), EndOf(*slot));
  }
}

// A new slot is ready: it stands in for the oldest one that waits for that, an idle one if there is
// any; one that is lent closes when it comes back. For one that is lent before it is warmed up, the
// oldest one serves to its end.
void PoolBook::CloseReplaced(Pool* pool, TimePoint now) {
  Slot* oldest = nullptr;
  for (Slot* slot : pool->replaced()) {
    const auto rank = [](const Slot& of) {
      return std::make_pair(of.state != SlotState::kIdle, of.age.created_at);
    };
    if (!slot->age.replacement_ready && (oldest == nullptr || rank(*slot) < rank(*oldest))) {
      oldest = slot;
    }
  }
  if (oldest == nullptr) {
    return;
  }
  oldest->age.replacement_ready = true;
  if (oldest->state == SlotState::kIdle) {
    CloseSlot(oldest, CloseReason::kLifetime, now);
  }
}

// --- memory -------------------------------------------------------------------------------------

void PoolBook::OnMeasured(Slot* slot, std::optional<std::int64_t> bytes, TimePoint now) {
  assert(slot->state == SlotState::kResetting || slot->state == SlotState::kChecking);
  Pool* pool = slot->pool;
  Node* node = pool->node;
  slot->age.memory_bytes = bytes;
  slot->age.checked_at = now;
  slot->age.check_at = now + JitteredGap(settings_.pool_session_context_check_gap, Jitter());
  if (!bytes.has_value() && !std::exchange(node->memory_hidden, true)) {
    surroundings_->Log(
        "memory of sessions on datanode \"" + node->definition.name + "\" cannot be measured",
        "Remote user \"" + pool->remote_user +
            "\" may not read pg_backend_memory_contexts there, and the extension "
            "polarx_pooler is not installed.");
  }
  const std::int64_t limit = std::int64_t{settings_.pool_session_memory_limit_mb} << 20;
  if (bytes.value_or(0) > limit) {
    surroundings_->Log("connection to datanode \"" + node->definition.name +
                           "\" is closed: its session, "
                           "process " +
                           std::to_string(slot->connection.remote_pid) + " of remote user \"" +
                           pool->remote_user + "\", uses " + Megabytes(*bytes),
                       "pooler.pool_session_memory_limit is " + Megabytes(limit) + ".");
    CloseSlot(slot, CloseReason::kMemory, now);
  } else {
    Settle(slot, now);
  }
}

}  // namespace polarx
