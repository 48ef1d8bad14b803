// Parked leases: the words in shared memory by which a session and the pooler worker settle who has
// a lease that the session keeps but does not use. Each function is for one side, that process's
// main thread.
//
// A lease that has just been granted can also be given back here, without a message: the pooler
// looks at it within kFreshTime, and sooner if it is needed.
//
// What has to be reset before it may be used again, by the same session or another one, can be
// parked as well: the session sends the reset, parks, and leaves the answer to whoever has the
// lease next. In this order: once it is parked its connection may be another's.
//
// Who parks or gives back writes the lease's cell and then reads how many wait; who waits writes
// that and then reads the cells. All of it is sequentially consistent, so that at least one of them
// sees what the other wrote: no ticket waits for a lease that has just been parked. One
// compare-and-swap on the cell decides who gets it. Numbers of leases are not used twice by a
// pooler worker, and a cell is given to another lease only when it is free.
//
// The functions are templates for the sake of a test that stops them between any two accesses.
#pragma once

#include <atomic>
#include <cstdint>

#include "core/time.h"

namespace polarx {

// Allotted by the pooler among those of the session that holds the lease.
struct LeaseCell {
  std::atomic<std::uint64_t> word{0};     // 0: free
  std::atomic<std::uint32_t> retakes{0};  // by the session, since the lease was granted
  // How long the lease was in use, told when it is parked or given back; 0 once it is taken again.
  std::atomic<std::uint32_t> held_us{0};
  std::atomic<std::uint32_t> sent_ms{0};  // when the last reset was sent: ClockMs
  // Since when a borrower has the lease, who cannot tell what it waits for: ClockMs; 0: none has.
  std::atomic<std::uint32_t> borrowed_ms{0};
  std::atomic<std::uint64_t> begun_us{0};  // when its transaction began: BegunAt
};

// Written by the pooler alone. Each has a cache line of its own: sessions read theirs all the time.
struct alignas(64) NodeCell {
  // Not 0 while the node is paused, or a ticket waits for any pool of it and for more than what is
  // being opened or reset: that one gets what comes back next.
  std::atomic<std::uint32_t> waiting{0};
  std::atomic<std::uint32_t> idle{0};  // not 0 while a connection to the node is idle
};

inline constexpr std::uint32_t kCellsOfASession = 16;
inline constexpr std::uint32_t kCellsOfAWorker = 256;

namespace parking {

inline constexpr Duration kFreshTime = std::chrono::milliseconds(5);

enum class State : std::uint8_t {
  kGone,       // not that lease's any more
  kLeased,     // in use
  kFresh,      // in use, and the pooler will look at it
  kParked,     // the session's as long as the pooler does not take it
  kReturned,   // the pooler's, as soon as it looks
  kRecalled,   // in use, and to be given back by a message
  kResetSent,  // parked, and the answer to the reset is unread
};
inline constexpr int kStateBits = 3;

inline std::uint64_t Word(std::uint64_t lease, State state) {
  return lease << kStateBits | static_cast<std::uint64_t>(state);
}

template <typename Cell>
State StateOf(const Cell& cell, std::uint64_t lease) {
  const std::uint64_t word = cell.word.load();
  return word >> kStateBits == lease ? static_cast<State>(word - Word(lease, State::kGone))
                                     : State::kGone;
}

inline bool InUse(State state) { return state == State::kLeased || state == State::kFresh; }
inline bool IsParked(State state) { return state == State::kParked || state == State::kResetSent; }

// The same clock in all processes; begins anew every 49 days.
inline std::uint32_t ClockMs(TimePoint now) {
  return static_cast<std::uint32_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count());
}

template <typename Cell>
bool Change(Cell* cell, std::uint64_t lease, State from, State to) {
  std::uint64_t expected = Word(lease, from);
  return cell->word.compare_exchange_strong(expected, to == State::kGone ? 0 : Word(lease, to));
}

// --- the pooler ----------------------------------------------------------------------------------

// `fresh`: LookAgain will follow. False: the cell is in use.
template <typename Cell>
bool Allot(Cell* cell, std::uint64_t lease, bool fresh) {
  if (cell->word.load() != 0) {
    return false;
  }
  cell->retakes.store(0);
  cell->word.store(Word(lease, fresh ? State::kFresh : State::kLeased));
  return true;
}

// The lease has come back otherwise.
template <typename Cell>
void Free(Cell* cell, std::uint64_t lease) {
  if (StateOf(*cell, lease) != State::kGone) {
    cell->word.store(0);
  }
}

// If the lease is parked or was given back it is the pooler's, and how it stood there is returned;
// else kGone.
template <typename Cell>
State Take(Cell* cell, std::uint64_t lease) {
  const State state = StateOf(*cell, lease);
  return (IsParked(state) || state == State::kReturned) && Change(cell, lease, state, State::kGone)
             ? state
             : State::kGone;
}

// True: the lease was given back, and is the pooler's.
template <typename Cell>
bool TakeReturned(Cell* cell, std::uint64_t lease) {
  return StateOf(*cell, lease) == State::kReturned &&
         Change(cell, lease, State::kReturned, State::kGone);
}

// The same; one that is in use is not fresh any more.
template <typename Cell>
bool LookAgain(Cell* cell, std::uint64_t lease) {
  return !Change(cell, lease, State::kFresh, State::kLeased) && TakeReturned(cell, lease);
}

// As Take; one that is in use will not be parked, nor given back here.
template <typename Cell>
State TakeOrRecall(Cell* cell, std::uint64_t lease) {
  for (;;) {
    const State state = StateOf(*cell, lease);
    if (state == State::kGone || state == State::kRecalled) {
      return State::kGone;
    }
    const bool in_use = InUse(state);
    if (Change(cell, lease, state, in_use ? State::kRecalled : State::kGone)) {
      return in_use ? State::kGone : state;
    }
  }
}

// --- the session ---------------------------------------------------------------------------------

enum class Parked : std::uint8_t {
  kYes,
  kNo,     // it is to be released by a message
  kTaken,  // the pooler has it already
};

// The session has put its lease where the pooler may take it, and undoes that if others wait.
template <typename Cell, typename Node>
Parked UndoIfWaiting(Cell* cell, const Node& node, std::uint64_t lease, State state) {
  if (node.waiting.load() == 0) {
    return Parked::kYes;
  }
  return Change(cell, lease, state, State::kLeased) ? Parked::kNo : Parked::kTaken;
}

// `as`: kParked or kResetSent.
template <typename Cell, typename Node>
Parked Park(Cell* cell, const Node& node, std::uint64_t lease, State as) {
  // In this order: a fresh one may become a leased one in between.
  if (node.waiting.load() != 0 ||
      (!Change(cell, lease, State::kFresh, as) && !Change(cell, lease, State::kLeased, as))) {
    return Parked::kNo;
  }
  return UndoIfWaiting(cell, node, lease, as);
}

// Gives a fresh lease back, for good.
template <typename Cell, typename Node>
Parked GiveBack(Cell* cell, const Node& node, std::uint64_t lease) {
  if (node.waiting.load() != 0 || !Change(cell, lease, State::kFresh, State::kReturned)) {
    return Parked::kNo;
  }
  return UndoIfWaiting(cell, node, lease, State::kReturned);
}

// Takes it back, in order to release it if others wait. False: the pooler has it.
template <typename Cell>
bool Unpark(Cell* cell, std::uint64_t lease) {
  const State state = StateOf(*cell, lease);  // which of the two, the session alone changes
  return IsParked(state) && Change(cell, lease, state, State::kLeased);
}

enum class Retaken : std::uint8_t {
  kYes,
  kNotNow,  // others wait; it stays parked until the pooler takes it
  kTaken,
};

template <typename Cell, typename Node>
Retaken Retake(Cell* cell, const Node& node, std::uint64_t lease) {
  if (node.waiting.load() != 0) {
    return Retaken::kNotNow;
  }
  if (!Unpark(cell, lease)) {
    return Retaken::kTaken;
  }
  cell->held_us.store(0);
  cell->retakes.fetch_add(1);
  return Retaken::kYes;
}

}  // namespace parking
}  // namespace polarx
