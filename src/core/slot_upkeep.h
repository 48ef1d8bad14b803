// What becomes due for single slots with time: their end, the check of their memory, the warning of
// a long lease. Says when and what; others do it. On the main thread.
#pragma once

#include <cstdint>
#include <optional>
#include <random>

#include "core/pool.h"
#include "core/settings.h"
#include "core/timer_queue.h"

namespace polarx {

// A slot has one timer at most, and only while it is idle or leased. The timer may go off too
// early, for a slot that changes its state keeps it; nothing is due then.
class SlotUpkeep {
 public:
  enum class Due : std::uint8_t {
    kNothing,
    kExpiry,   // the slot's life nears its end: it is to become expiring, and not to be kept
    kEnd,      // the idle slot's life is over
    kCheck,    // its memory is to be measured
    kWarning,  // its lease is held for long, as far as is known
  };

  SlotUpkeep(const Settings& settings, std::uint64_t seed);
  SlotUpkeep(const SlotUpkeep&) = delete;
  SlotUpkeep& operator=(const SlotUpkeep&) = delete;

  // True: slots that are open need new times (SetTimes), all of them a new timer (Arm).
  bool Apply(const Settings& settings);

  // The slot's connection was opened now.
  void Begin(Slot* slot, TimePoint now);
  // Draws the slot's times anew, from the settings that hold now.
  void SetTimes(Slot* slot);
  // The memory of the slot's datanode session was asked for; nothing: it cannot be measured. True:
  // it uses more than pool_session_memory_limit.
  bool NoteMemory(Slot* slot, std::optional<std::int64_t> bytes, TimePoint now);
  // The check of an idle slot waits for another one of its pool. Those of a pool come back one
  // after the other.
  void PostponeCheck(Slot* slot, TimePoint now);

  // Sees to it that the slot comes up when something is due for it: to be called once it has become
  // idle or leased, and after everything that was due.
  void Arm(const Slot& slot);
  void Forget(const Slot& slot) { timers_.Remove(slot.id); }
  // The next slot whose timer has gone off, which has none then; nothing: there is none.
  std::optional<SlotId> TakeDue(TimePoint now) { return timers_.TakeDue(now); }
  TimePoint NextDeadline() const { return timers_.Next(); }
  // The first of what is due for an idle or leased slot.
  Due WhatIsDue(const Slot& slot, TimePoint now) const;

  // A slot is not lent, nor kept idle, from then on.
  TimePoint EndOf(const Slot& slot) const { return slot.age.created_at + lifetime_; }
  std::int64_t memory_limit() const { return memory_limit_; }

 private:
  TimePoint ExpiryOf(const Slot& slot) const;
  TimePoint CheckOf(const Slot& slot) const;
  TimePoint WarningOf(const Slot& slot) const;
  double Jitter() { return std::uniform_real_distribution<double>(0, 1)(random_); }

  std::chrono::seconds lifetime_;
  std::chrono::seconds check_gap_;
  std::chrono::seconds warn_after_;  // 0: never
  std::int64_t memory_limit_;        // bytes
  std::minstd_rand random_;
  TimerQueue<SlotId> timers_;
};

}  // namespace polarx
