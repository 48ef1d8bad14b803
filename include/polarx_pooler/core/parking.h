// Parked leases: the words in shared memory by which a session and the pooler worker settle who has
// a lease that the session keeps but does not use. Each function is for one side, that process's
// main thread.
//
// Who parks writes the lease's cell and then reads how many wait; who waits writes that and then
// reads the cells. All of it is sequentially consistent, so that at least one of them sees what the
// other wrote: no ticket waits for a lease that has just been parked. One compare-and-swap on the
// cell decides who gets it. Numbers of leases are not used twice by a pooler worker, and a cell is
// given to another lease only when it is free.
//
// The functions are templates for the sake of a test that stops them between any two accesses.
#pragma once

#include <atomic>
#include <cstdint>

namespace polarx {

// Allotted by the pooler among those of the session that holds the lease.
struct LeaseCell {
  std::atomic<std::uint64_t> word{0};     // 0: free
  std::atomic<std::uint32_t> retakes{0};  // by the session, since the lease was granted
};

// Written by the pooler alone: not 0 while a ticket waits for any pool of the node, or the node is
// paused.
struct NodeCell {
  std::atomic<std::uint32_t> waiting{0};
};

inline constexpr std::uint32_t kCellsOfASession = 16;
inline constexpr std::uint32_t kCellsOfAWorker = 256;

namespace parking {

enum class State : std::uint8_t {
  kGone,      // not that lease's any more
  kLeased,    // in use
  kParked,    // the session's as long as the pooler does not take it
  kRecalled,  // in use, and not to be parked
};

inline std::uint64_t Word(std::uint64_t lease, State state) {
  return lease << 2 | static_cast<std::uint64_t>(state);
}

template <typename Cell>
State StateOf(const Cell& cell, std::uint64_t lease) {
  const std::uint64_t word = cell.word.load();
  return word >> 2 == lease ? static_cast<State>(word & 3) : State::kGone;
}

template <typename Cell>
bool Change(Cell* cell, std::uint64_t lease, State from, State to) {
  std::uint64_t expected = Word(lease, from);
  return cell->word.compare_exchange_strong(expected, to == State::kGone ? 0 : Word(lease, to));
}

// --- the pooler ----------------------------------------------------------------------------------

// False: the cell is in use.
template <typename Cell>
bool Allot(Cell* cell, std::uint64_t lease) {
  if (cell->word.load() != 0) {
    return false;
  }
  cell->retakes.store(0);
  cell->word.store(Word(lease, State::kLeased));
  return true;
}

// The lease has come back otherwise.
template <typename Cell>
void Free(Cell* cell, std::uint64_t lease) {
  if (StateOf(*cell, lease) != State::kGone) {
    cell->word.store(0);
  }
}

// True: the lease was parked, and is the pooler's.
template <typename Cell>
bool Take(Cell* cell, std::uint64_t lease) {
  return Change(cell, lease, State::kParked, State::kGone);
}

// The same; one that is in use will not be parked.
template <typename Cell>
bool TakeOrRecall(Cell* cell, std::uint64_t lease) {
  for (;;) {
    switch (StateOf(*cell, lease)) {
      case State::kGone:
      case State::kRecalled:
        return false;
      case State::kParked:
        if (Take(cell, lease)) {
          return true;
        }
        break;
      case State::kLeased:
        if (Change(cell, lease, State::kLeased, State::kRecalled)) {
          return false;
        }
        break;
    }
  }
}

// --- the session ---------------------------------------------------------------------------------

enum class Parked : std::uint8_t {
  kYes,
  kNo,     // it is to be released
  kTaken,  // the pooler has it already
};

template <typename Cell, typename Node>
Parked Park(Cell* cell, const Node& node, std::uint64_t lease) {
  if (node.waiting.load() != 0 || !Change(cell, lease, State::kLeased, State::kParked)) {
    return Parked::kNo;
  }
  if (node.waiting.load() == 0) {
    return Parked::kYes;
  }
  return Change(cell, lease, State::kParked, State::kLeased) ? Parked::kNo : Parked::kTaken;
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
  if (!Change(cell, lease, State::kParked, State::kLeased)) {
    return Retaken::kTaken;
  }
  cell->retakes.fetch_add(1);
  return Retaken::kYes;
}

// Takes it back in order to release it. False: the pooler has it.
template <typename Cell>
bool Unpark(Cell* cell, std::uint64_t lease) {
  return Change(cell, lease, State::kParked, State::kLeased);
}

}  // namespace parking
}  // namespace polarx
