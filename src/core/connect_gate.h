// When a connection may be opened, and what a failed attempt proves; owned by the main thread.
//
// A failure concerns the whole node, one pool, or this process (FailureScope). It holds off whom it
// concerns: until a time that doubles with each failure in a row nothing is opened, then one
// attempt at a time. Requests are turned away meanwhile only once a request has had an attempt of
// its own: that a datanode was away while nobody asked costs nobody.
#pragma once

#include <cstdint>
#include <optional>
#include <random>

#include "core/outside.h"
#include "core/pool.h"
#include "core/timer_queue.h"

namespace polarx {

enum class ConnectPurpose : std::uint8_t {
  kRequest,  // a session waits for it
  kReserve,  // minima and replacements
};

struct ConnectVerdict {
  enum Answer : std::uint8_t {
    kOpen,
    kLater,    // others are under way, or there is no room on the node
    kRefused,  // held off
  };
  Answer answer = kLater;
  const HoldOff* because = nullptr;  // of kRefused: which hold-off
};

// It alone changes the hold-offs of nodes and pools and their other fields marked so. Its limits:
// kParallelConnects to a node at a time, half of that for one pool while another one has requests;
// one attempt while held off; none without a request after a refused login.
class ConnectGate {
 public:
  ConnectGate(Surroundings* surroundings, std::uint64_t seed)
      : surroundings_(surroundings), random_(static_cast<std::minstd_rand::result_type>(seed)) {}

  ConnectVerdict Ask(const Pool& pool, ConnectPurpose purpose, TimePoint now) const;
  bool MayOpen(const Pool& pool, ConnectPurpose purpose, TimePoint now) const {
    return Ask(pool, purpose, now).answer == ConnectVerdict::kOpen;
  }
  // Would a connect for a request of that pool be turned away without an attempt?
  static bool IsHeldOff(const Pool& pool, TimePoint now);
  // How long it takes to open a connection to the node: 5 ms at least, 1 s at most.
  static Duration UsualConnectTime(const Node& node);

  // The slot is to be connected: requests that wait now have their attempt with that.
  static void OnOrdered(Slot* slot);
  // `took`: from the order to open it.
  void OnConnected(Pool* pool, Duration took, TimePoint now);
  void OnConnectFailed(const Slot& slot, const Status& status, FailureScope scope, TimePoint now);
  // A connection has ended by itself. Returns true where that is a failed attempt of its pool: it
  // was never lent, and younger than a second and than twice the usual connect time.
  bool OnEnded(const Slot& slot, const std::string& why, TimePoint now);
  // A connection was good enough to be lent.
  void OnLent(Pool* pool);
  void OnPing(Node* node, bool up, const Status& status, TimePoint now);
  // Somebody has changed how the node is reached, and wants to see it tried.
  static void ForgetFailures(Node* node) { node->hold_off = HoldOff(); }
  static void ForgetWhatIsKnown(Node* node) {
    node->hold_off = HoldOff();
    node->known_up = false;
    for (Pool* pool : node->pools) {
      pool->login_refused = false;
    }
  }
  void Forget(const Pool& pool) { retries_.Remove(pool.id); }

  // The pools that may try again now, one at each call; nothing: no more.
  std::optional<PoolId> TakeDue(TimePoint now) { return retries_.TakeDue(now); }
  // To be called for each of these.
  void EndTrial(Pool* pool, TimePoint now);
  TimePoint NextTime() const { return retries_.Next(); }

 private:
  static bool IsProbeDue(const Pool& pool, const HoldOff& hold_off, TimePoint now);
  void FailNode(Node* node, const Status& status, TimePoint now);
  void FailPool(Pool* pool, const Status& status, TimePoint now);
  void Recover(Node* node);
  void Recover(Pool* pool);
  void AwaitRetry(const Node& node, TimePoint now);
  void AwaitRetry(const Pool& pool, TimePoint now);
  double Jitter() { return std::uniform_real_distribution<double>(0, 1)(random_); }

  Surroundings* const surroundings_;
  std::minstd_rand random_;
  TimerQueue<PoolId> retries_;
};

}  // namespace polarx
