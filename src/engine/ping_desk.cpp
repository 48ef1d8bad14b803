// Pings begin and end here; on the main thread.
#include "engine/ping_desk.h"

#include <cassert>
#include <optional>

#include "engine/startup_ping.h"

namespace polarx {
namespace {

// For the helper thread's answer to arrive.
constexpr Duration kGrace = std::chrono::milliseconds(200);

}  // namespace

void PingDesk::Begin(SessionId session, std::uint32_t request, const std::vector<NodeId>& nodes,
                     RoleId role, std::chrono::seconds limit, TimePoint now) {
  if (nodes.empty()) {
    driver_->OnAllPinged(session, request, {});
    return;
  }
  const std::uint64_t job = next_++;
  jobs_[job] = {.session = session,
                .request = request,
                .open = nodes.size(),
                .rows = std::vector<protocol::Row>(nodes.size())};
  for (std::size_t row = 0; row < nodes.size(); ++row) {
    const PingId ping = next_++;
    Target& target = targets_[ping];
    target = {.job = job,
              .row = row,
              .node = nodes[row],
              .sent_at = now,
              .deadline = now + limit,
              .limit = limit,
              .on_slot = driver_->PingBySlot(ping, nodes[row], role, now)};
    if (target.on_slot) {
      SetDue(ping, &target, now + Duration(limit) / 2);
    } else {
      AskByStartup(ping, now);
    }
  }
}

void PingDesk::SetDue(PingId ping, Target* target, TimePoint due) {
  due_.erase({target->due, ping});
  target->due = due;
  due_.emplace(due, ping);
}

void PingDesk::AskByStartup(PingId ping, TimePoint now) {
  Target& target = targets_.at(ping);
  target.on_slot = false;
  SetDue(ping, &target, target.deadline + kGrace);
  if (!driver_->PingByStartup(ping, target.node, target.deadline, target.limit)) {
    End(ping, Status(sqlstate::kUndefinedObject, "datanode is not known to the pooler"), 0, now);
  }
}

void PingDesk::OnSlotAnswer(PingId ping, const Status& status, TimePoint now) {
  const auto found = targets_.find(ping);
  if (found == targets_.end()) {
    return;
  }
  if (status.ok()) {
    const Duration took = now - found->second.sent_at;
    End(ping, status, std::chrono::duration<double, std::milli>(took).count(), now);
  } else if (found->second.on_slot) {
    AskByStartup(ping, now);  // that connection is at fault, maybe no more
  }
}

void PingDesk::OnStartupAnswer(PingId ping, const Status& status, double milliseconds,
                               TimePoint now) {
  if (targets_.contains(ping)) {
    End(ping, status, milliseconds, now);
  }
}

// A helper thread may be stuck in a name lookup.
void PingDesk::Expire(TimePoint now) {
  while (!due_.empty() && due_.begin()->first <= now) {
    const PingId ping = due_.begin()->second;
    const Target& target = targets_.at(ping);
    if (target.on_slot) {
      AskByStartup(ping, now);
    } else {
      End(ping, NoAnswerToPing(driver_->NameOf(target.node), target.limit), 0, now);
    }
  }
}

void PingDesk::End(PingId ping, const Status& status, double milliseconds, TimePoint now) {
  const Target target = targets_.at(ping);
  targets_.erase(ping);
  due_.erase({target.due, ping});
  driver_->OnPinged(target.node, status, milliseconds, now);
  const std::string node = driver_->NameOf(target.node);
  Job& job = jobs_.at(target.job);
  assert(job.open > 0 && job.rows[target.row].empty());
  using Value = std::optional<std::string>;
  job.rows[target.row] = {node.empty() ? Value() : Value(node), status.ok() ? "t" : "f",
                          status.ok() ? Value(std::to_string(milliseconds)) : Value(),
                          status.ok() ? Value() : Value(status.message())};
  if (--job.open == 0) {
    Job done = std::move(job);
    jobs_.erase(target.job);
    driver_->OnAllPinged(done.session, done.request, std::move(done.rows));
  }
}

}  // namespace polarx
