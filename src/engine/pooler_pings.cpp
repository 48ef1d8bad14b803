// Pings of nodes, on idle slots or by a startup of their own; on the main thread.
#include <algorithm>

#include "engine/startup_ping.h"
#include "engine/pooler_impl.h"

namespace polarx {

void Pooler::Impl::HandlePing(Session* session, const protocol::Ping& ping, TimePoint now) {
  const std::uint64_t job = next_ping_++;
  PingJob& entry = ping_jobs_[job];
  entry.session = session->id;
  entry.request = ping.request;
  entry.open = ping.nodes.size();
  entry.rows.resize(ping.nodes.size());
  if (ping.nodes.empty()) {
    Send(session, protocol::Rows{ping.request, {}});
    ping_jobs_.erase(job);
    return;
  }
  for (std::size_t row = 0; row < ping.nodes.size(); ++row) {
    PingNode(job, row, ping.nodes[row], ping.role, now);
  }
}

// On an idle slot of the role's pool, else by a startup without credentials on a helper thread. A
// slot that keeps silent is given half of the time; the other half shows whether it is the node.
void Pooler::Impl::PingNode(std::uint64_t job, std::size_t row, NodeId id, RoleId role,
                            TimePoint now) {
  const std::uint64_t ping = next_ping_++;
  // Oldest first: the time-out of what is under way is not shortened by a reload.
  constexpr Duration kGrace = std::chrono::milliseconds(200);
  const Duration limit = book_.settings().pooler_dn_set_timeout;
  TimePoint give_up_at = now + limit + kGrace;
  if (!pings_.empty()) {
    give_up_at = std::max(give_up_at, pings_.rbegin()->second.give_up_at);
  }
  PingTarget& target = pings_[ping];
  target = {.job = job,
            .row = row,
            .node = id,
            .sent_at = now,
            .deadline = now + limit,
            .give_up_at = give_up_at};
  const MappingEntry* entry = book_.FindMapping(id, role);
  if (entry != nullptr && entry->pool != nullptr) {
    if (Slot* slot = book_.TakeForPing(entry->pool, now); slot != nullptr) {
      slot_pings_[slot->id] = ping;
      target.verify_at = now + limit / 2;
      RunOn(slot, RunKind::kPing, {""});
      return;
    }
  }
  PingByStartup(ping, &target, now);
}

void Pooler::Impl::FinishSlotPing(const Slot& slot, const RunDone& done, TimePoint now) {
  const auto found = slot_pings_.find(slot.id);
  if (found == slot_pings_.end()) {
    return;
  }
  const std::uint64_t ping = found->second;
  slot_pings_.erase(found);
  const auto target = pings_.find(ping);
  if (target == pings_.end()) {
    return;  // given up
  }
  const double milliseconds =
      std::chrono::duration<double, std::milli>(now - target->second.sent_at).count();
  if (done.status.ok()) {
    FinishPing(ping, done.status, milliseconds, now);
  } else if (target->second.verify_at != kNever) {
    PingByStartup(ping, &target->second, now);  // that connection is at fault, maybe no more
  }
}

void Pooler::Impl::PingByStartup(std::uint64_t ping, PingTarget* target, TimePoint now) {
  target->verify_at = kNever;
  const Node* node = book_.FindNode(target->node);
  if (node == nullptr) {
    FinishPing(ping, Status(sqlstate::kUndefinedObject, "datanode is not known to the pooler"), 0,
               now);
    return;
  }
  const NodeDefinition& definition = node->definition;
  const std::string& host = definition.hostaddr.empty() ? definition.host : definition.hostaddr;
  const std::string port = std::to_string(definition.port);
  helpers_.Run("ping " + host + ":" + port, [mailbox = mailbox_, ping, name = definition.name,
                                             host = host, port, deadline = target->deadline,
                                             limit = book_.settings().pooler_dn_set_timeout] {
    const TimePoint begin = Now();
    Status status = StartupPing(name, host, port, deadline, limit);
    const double milliseconds = std::chrono::duration<double, std::milli>(Now() - begin).count();
    mailbox->completions.Send(Pinged{ping, std::move(status), milliseconds});
  });
}

TimePoint Pooler::Impl::NextPingDeadline() const {
  TimePoint next = pings_.empty() ? kNever : pings_.begin()->second.give_up_at;
  for (const auto& [ping, target] : pings_) {
    next = std::min(next, target.verify_at);
  }
  return next;
}

// A helper thread may be stuck in a name lookup.
void Pooler::Impl::ExpirePings(TimePoint now) {
  std::vector<std::uint64_t> suspect;
  for (const auto& [ping, target] : pings_) {
    if (now >= target.verify_at) {
      suspect.push_back(ping);
    }
  }
  for (const std::uint64_t ping : suspect) {
    PingByStartup(ping, &pings_.at(ping), now);
  }
  while (!pings_.empty() && pings_.begin()->second.give_up_at <= now) {
    const std::uint64_t ping = pings_.begin()->first;
    const Node* node = book_.FindNode(pings_.begin()->second.node);
    const std::chrono::seconds limit = book_.settings().pooler_dn_set_timeout;
    FinishPing(ping, NoAnswerToPing(node != nullptr ? node->definition.name : "", limit), 0, now);
  }
}

void Pooler::Impl::FinishPing(std::uint64_t ping, const Status& status, double milliseconds,
                              TimePoint now) {
  const auto found = pings_.find(ping);
  if (found == pings_.end()) {
    return;
  }
  const PingTarget target = found->second;
  pings_.erase(found);
  book_.OnPing(target.node, status.ok(), milliseconds, status, now);
  PingJob& job = ping_jobs_.at(target.job);
  const Node* node = book_.FindNode(target.node);
  job.rows[target.row] = {
      node != nullptr ? std::optional<std::string>(node->definition.name) : std::nullopt,
      status.ok() ? "t" : "f",
      status.ok() ? std::optional<std::string>(std::to_string(milliseconds)) : std::nullopt,
      status.ok() ? std::nullopt : std::optional<std::string>(status.message())};
  if (--job.open > 0) {
    return;
  }
  if (Session* session = FindSession(job.session); session != nullptr && !session->ended) {
    Send(session, protocol::Rows{job.request, std::move(job.rows)});
  }
  ping_jobs_.erase(target.job);
}

}  // namespace polarx
