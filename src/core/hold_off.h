// After a failed connect: when to try again, and what to say until then; owned by the main thread.
#pragma once

#include "core/status.h"
#include "core/time.h"

namespace polarx {

// Which neighbours a failure concerns.
enum class FailureScope {
  kNode,  // refused, unreachable, silent, starting up, too many clients: every pool of the node
  kPool,  // wrong password, no such database, no right: that pool alone
  kSelf,  // this process lacks something: that pool alone, and nothing is known of the node
};

// How far a failed connect came.
enum class ConnectReach {
  kNothing,  // nothing has answered: no route, refused, silent, or something else than a datanode
  kServer,   // a datanode has said something in PostgreSQL's protocol, so it is up
};

// By the SQLSTATE of a failed connect and how far it came. A datanode that has begun to talk and
// then falls silent or hangs up may do so to one role alone (its authentication hangs): that
// concerns the pool.
FailureScope ScopeOfFailure(const std::string& sqlstate,
                            ConnectReach reach = ConnectReach::kNothing);

class HoldOff {
 public:
  // From kFirstDelay, doubled with each failure in a row up to kLongestDelay, less up to a quarter.
  static constexpr Duration kFirstDelay = std::chrono::milliseconds(100);
  static constexpr Duration kLongestDelay = std::chrono::seconds(5);
  static constexpr Duration kCrowdedFor = std::chrono::seconds(10);

  bool active() const { return failures_ > 0; }
  // A request has had its own attempt, and that failed: until retry_at others are turned away.
  // Before that only refilling waits, so that a datanode that was away while nobody asked costs
  // nobody.
  bool proven() const { return active() && proven_; }
  void Prove() { proven_ = true; }
  // May a connect be tried at `now`? While active, one at a time is for the caller to see to.
  bool Permits(TimePoint now) const { return !active() || now >= retry_at_; }
  TimePoint retry_at() const { return retry_at_; }  // meaningful while active
  const Status& status() const { return status_; }  // the last failure; kept after it ended
  TimePoint failed_at() const { return failed_at_; }
  // It had no room a short while ago: no more than one connect at a time, that one may find some.
  bool Crowded(TimePoint now) const;

  // `jitter` in [0, 1). True: this is a change from well to ill.
  bool Fail(const Status& status, TimePoint now, double jitter);
  // An attempt has told nothing.
  void Postpone(TimePoint now) { retry_at_ = now + kFirstDelay; }
  // True: this is a change from ill to well.
  bool Clear();

  // The status for a request that is turned away meanwhile: says when the next attempt is. 08001
  // for a failure of the whole node, else the datanode's own SQLSTATE.
  Status Refusal(TimePoint now) const;

 private:
  int failures_ = 0;
  bool proven_ = false;
  TimePoint retry_at_{};
  TimePoint failed_at_{};
  Status status_;
};

}  // namespace polarx
