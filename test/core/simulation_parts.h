// The parts of the simulated world that are plain data, and the source of all
// chance.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/pool_book.h"

namespace polarx {

inline void Require(bool truth, const char* what) {
  if (!truth) {
    throw std::runtime_error(what);
  }
}
// `more` makes what else is to be told.
template <typename More>
void Require(bool truth, const char* what, const More& more) {
  if (!truth) {
    throw std::runtime_error(what + (": " + more()));
  }
}

class Chance {
 public:
  explicit Chance(std::uint64_t seed) : random_(seed) {}
  // Both ends included.
  int Number(int from, int to) {
    return from + static_cast<int>(random_() % static_cast<std::uint64_t>(to - from + 1));
  }
  bool Percent(int percent) { return Number(1, 100) <= percent; }
  // Short times as likely as long ones.
  Duration Time(Duration most) { return Duration(most.count() >> Number(0, 12)); }

 private:
  std::mt19937_64 random_;
};

struct Datanode {
  NodeDefinition definition;
  bool present = true;
  bool down = false;
  bool hangs_up = false;  // on whom it has let in
  bool asks_password = true;
  std::set<int> locked_out;  // users
};

// Connects to each node within the last second.
class Attempts {
 public:
  // Where none is of use: at first those in parallel for three users, then some retries of each.
  static constexpr std::size_t kMost = std::size_t{6} * kParallelConnects;
  // How many these are.
  std::size_t Add(NodeId node, TimePoint now) {
    std::deque<TimePoint>& attempts = attempts_[node];
    attempts.push_back(now);
    while (attempts.front() <= now - std::chrono::seconds(1)) {
      attempts.pop_front();
    }
    return attempts.size();
  }

 private:
  std::map<NodeId, std::deque<TimePoint>> attempts_;
};

struct Mapping {
  bool present = true;
  bool known = true;  // to the pooler before a session asks for it
  bool restricted = false;
  bool broken = false;
  int user = 0;
};

// A lease with where its session may park it.
struct Kept {
  LeaseId lease = 0;
  LeaseCell* cell = nullptr;
  const NodeCell* node = nullptr;
  bool taken = false;       // by the pooler; the session finds out
  bool reset_sent = false;  // and the answer is unread
};

struct Client {
  SessionId id = 0;
  bool waiting = false;
  bool patient = false;
  TimePoint answer_by = kNever;  // of a patient request
  std::uint32_t request = 0;
  std::vector<protocol::Wanted> wanted;
  std::vector<LeaseId> leases;
  std::vector<Kept> parked;
  std::vector<Kept> returned;  // through their cells; the pooler has not looked yet
  int place = 0;               // of its process, which has the cells
  Duration paused_before{};    // its request: when it came, so long nodes had been
                               // paused
  bool unseen = false;         // the last grant: may still be taken back
};

}  // namespace polarx
