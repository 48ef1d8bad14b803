// Pings under way: each node that a session asks about is asked in one way, or two, and has one
// answer; on the main thread.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/node.h"
#include "core/protocol.h"
#include "core/slot.h"
#include "core/status.h"
#include "core/time.h"

namespace polarx {

using PingId = std::uint64_t;  // of one node's ping; never used twice; 0: none

// How pings are made, and who hears of them.
class PingDriver {
 public:
  virtual ~PingDriver() = default;
  // Asks over an idle slot of that role's pool -> PingDesk::OnSlotAnswer. False: there is none.
  virtual bool PingBySlot(PingId ping, NodeId node, RoleId role, TimePoint now) = 0;
  // Asks by beginning a startup, until `deadline` -> PingDesk::OnStartupAnswer. False: there is no
  // such node.
  virtual bool PingByStartup(PingId ping, NodeId node, TimePoint deadline,
                             std::chrono::seconds limit) = 0;
  // The node has answered, in `milliseconds`, or has not, as `status` says.
  virtual void OnPinged(NodeId node, const Status& status, double milliseconds, TimePoint now) = 0;
  virtual std::string NameOf(NodeId node) = 0;  // "": there is no such node any more
  // A session's ping is answered: one row a node.
  virtual void OnAllPinged(SessionId session, std::uint32_t request,
                           std::vector<protocol::Row> rows) = 0;
};

class PingDesk {
 public:
  explicit PingDesk(PingDriver* driver) : driver_(driver) {}

  // A session asks about `nodes`, on idle slots of the role's pools, else by startups. `limit`
  // (pooler_dn_set_timeout) is the longest that each may take; a slot that keeps silent is given
  // half of it, the other half shows whether it is the node.
  void Begin(SessionId session, std::uint32_t request, const std::vector<NodeId>& nodes,
             RoleId role, std::chrono::seconds limit, TimePoint now);
  // What comes for a ping that has ended changes nothing.
  void OnSlotAnswer(PingId ping, const Status& status, TimePoint now);
  void OnStartupAnswer(PingId ping, const Status& status, double milliseconds, TimePoint now);

  // Ends what took too long.
  void Expire(TimePoint now);
  TimePoint NextDeadline() const { return due_.empty() ? kNever : due_.begin()->first; }

 private:
  // A session's request.
  struct Job {
    SessionId session = 0;
    std::uint32_t request = 0;
    std::size_t open = 0;  // nodes that have no answer
    std::vector<protocol::Row> rows;
  };
  struct Target {
    std::uint64_t job = 0;
    std::size_t row = 0;
    NodeId node = 0;
    TimePoint sent_at{};
    TimePoint deadline{};
    std::chrono::seconds limit{};
    bool on_slot = false;  // else by startup
    TimePoint due{};       // its place in due_
  };
  void SetDue(PingId ping, Target* target, TimePoint due);
  void AskByStartup(PingId ping, TimePoint now);
  void End(PingId ping, const Status& status, double milliseconds, TimePoint now);

  PingDriver* const driver_;
  std::map<std::uint64_t, Job> jobs_;
  std::map<PingId, Target> targets_;
  std::set<std::pair<TimePoint, PingId>> due_;  // one entry a target
  std::uint64_t next_ = 1;
};

}  // namespace polarx
