// What becomes due for single slots with time; on the main thread.
#include "core/slot_upkeep.h"

#include <algorithm>
#include <cassert>

namespace polarx {
namespace {

constexpr Duration kCheckAgain = std::chrono::milliseconds(20);

std::int64_t Bytes(int megabytes) { return std::int64_t{megabytes} << 20; }

}  // namespace

SlotUpkeep::SlotUpkeep(const Settings& settings, std::uint64_t seed)
    : lifetime_(settings.pool_session_max_lifetime),
      check_gap_(settings.pool_session_context_check_gap),
      warn_after_(settings.lease_warn_after),
      memory_limit_(Bytes(settings.pool_session_memory_limit_mb)),
      random_(static_cast<std::minstd_rand::result_type>(seed)) {}

bool SlotUpkeep::Apply(const Settings& settings) {
  const bool changed = lifetime_ != settings.pool_session_max_lifetime ||
                       check_gap_ != settings.pool_session_context_check_gap;
  lifetime_ = settings.pool_session_max_lifetime;
  check_gap_ = settings.pool_session_context_check_gap;
  warn_after_ = settings.lease_warn_after;
  memory_limit_ = Bytes(settings.pool_session_memory_limit_mb);
  return changed;
}

void SlotUpkeep::Begin(Slot* slot, TimePoint now) {
  assert(slot->state == SlotState::kConnecting);
  slot->age.created_at = slot->age.checked_at = slot->idle_since = now;
  SetTimes(slot);
}

void SlotUpkeep::SetTimes(Slot* slot) {
  slot->age.expires_at = slot->age.created_at + JitteredLifetime(lifetime_, Jitter());
  slot->age.check_at = slot->age.checked_at + JitteredGap(check_gap_, Jitter());
}

bool SlotUpkeep::NoteMemory(Slot* slot, std::optional<std::int64_t> bytes, TimePoint now) {
  slot->age.memory_bytes = bytes;
  slot->age.checked_at = now;
  slot->age.check_at = now + JitteredGap(check_gap_, Jitter());
  return bytes.value_or(0) > memory_limit_;
}

void SlotUpkeep::PostponeCheck(Slot* slot, TimePoint now) {
  assert(slot->state == SlotState::kIdle);
  TimePoint& last = slot->pool->last_check;
  slot->age.check_at = last = std::max(last, now) + kCheckAgain;
}

// An expiring slot that is lent was recalled, or is to be.
TimePoint SlotUpkeep::ExpiryOf(const Slot& slot) const {
  if (slot.state == SlotState::kIdle) {
    return slot.age.expiring ? EndOf(slot) : slot.age.expires_at;
  }
  return slot.lease.recalled || slot.doomed != CloseReason::kNone ? kNever : slot.age.expires_at;
}

// A leased one is checked when it comes back, but one that may be parked might not come back.
TimePoint SlotUpkeep::CheckOf(const Slot& slot) const {
  const bool comes_back =
      slot.state == SlotState::kLeased && (slot.parking.cell == nullptr || slot.parking.barred);
  return comes_back ? kNever : slot.age.check_at;
}

TimePoint SlotUpkeep::WarningOf(const Slot& slot) const {
  const bool warns = slot.state == SlotState::kLeased && !slot.lease.warned &&
                     warn_after_ > std::chrono::seconds(0);
  return warns ? slot.lease.held_since + warn_after_ : kNever;
}

void SlotUpkeep::Arm(const Slot& slot) {
  if (slot.state == SlotState::kIdle || slot.state == SlotState::kLeased) {
    timers_.SetEarlier(slot.id, std::min({ExpiryOf(slot), CheckOf(slot), WarningOf(slot)}));
  }
}

SlotUpkeep::Due SlotUpkeep::WhatIsDue(const Slot& slot, TimePoint now) const {
  if (slot.state != SlotState::kIdle && slot.state != SlotState::kLeased) {
    return Due::kNothing;
  }
  if (now >= ExpiryOf(slot)) {
    return slot.state == SlotState::kIdle && now >= EndOf(slot) ? Due::kEnd : Due::kExpiry;
  }
  if (now >= CheckOf(slot)) {
    return Due::kCheck;
  }
  return now >= WarningOf(slot) ? Due::kWarning : Due::kNothing;
}

}  // namespace polarx
