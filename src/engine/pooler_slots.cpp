// What the book-keeping orders of the worker threads, what comes back, and pings; on the main
// thread.
#include <libpq-fe.h>
#include <sys/socket.h>

#include <cerrno>
#include <stdexcept>

#include "polarx_pooler/engine/connect_error.h"
#include "pooler_impl.h"

namespace polarx {

// --- orders -------------------------------------------------------------------------------------

void Pooler::Impl::Connect(Slot* slot) {
  const Settings& settings = book_.settings();
  const NodeDefinition& definition = slot->pool->node->definition;
  const std::string& node = definition.name;
  // Node by node in turn: else the connections of one node could all meet on one thread.
  slot->thread =
      static_cast<int>((definition.id + next_worker_[definition.id]++) % workers_.size());
  constexpr int kReserve = 8;
  if (FdsUsed() + kReserve > config_.fd_limit) {
    mailbox_->completions.Send(ConnectFailed{
        slot->id,
        Status(sqlstate::kOutOfDescriptors,
               "pooler worker has no descriptor left for a connection to datanode \"" + node + "\"",
               std::to_string(FdsUsed()) + " of " + std::to_string(config_.fd_limit) +
                   " descriptors are in use.",
               "Raise the server's limit of open files, or lower "
               "pooler.max_pool_size.")});
    return;
  }
  WorkerOf(*slot)->Send(ConnectOrder{.slot = slot->id,
                                     .node_name = node,
                                     .options = slot->pool->options,
                                     .deadline = Now() + settings.pooler_connect_timeout,
                                     .timeout = settings.pooler_connect_timeout});
}

void Pooler::Impl::RunOn(Slot* slot, RunKind kind, std::vector<std::string> statements,
                         std::vector<std::string> verify) {
  const std::chrono::seconds timeout = book_.settings().pooler_dn_set_timeout;
  WorkerOf(*slot)->Send(RunOrder{.slot = slot->id,
                                 .kind = kind,
                                 .statements = std::move(statements),
                                 .verify = std::move(verify),
                                 .deadline = Now() + timeout,
                                 .timeout = timeout});
}

void Pooler::Impl::Warm(Slot* slot) {
  RunOn(slot, RunKind::kWarm, {book_.settings().warmup_query});
}

void Pooler::Impl::Reset(Slot* slot, protocol::ReleaseKind kind) {
  std::vector<std::string> statements;
  if (kind == protocol::ReleaseKind::kInTransaction) {
    statements.emplace_back("ROLLBACK");
  }
  statements.push_back(book_.settings().reset_query);
  RunOn(slot, RunKind::kReset, std::move(statements), std::move(verify_));
  verify_.clear();
}

void Pooler::Impl::Close(Slot* slot) {
  // Its borrower could not leave it in order: a statement may be running.
  const bool unknown = slot->doomed == CloseReason::kRequested;
  WorkerOf(*slot)->Send(CloseOrder{.slot = slot->id,
                                   .cancel = unknown,
                                   .deadline = Now() + book_.settings().pooler_dn_set_timeout});
}

// Anything that can be read from an idle connection, its end included, makes it unfit.
bool Pooler::Impl::LooksAlive(const Slot& slot) {
  char byte;
  const ssize_t got = recv(slot.socket, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return got < 0 && (errno == EAGAIN || errno == EINTR);
}

void Pooler::Impl::Log(const std::string& message, const std::string& detail) {
  log_.Push(LogSeverity::kLog, message, detail);
}

// --- completions --------------------------------------------------------------------------------

void Pooler::Impl::Complete(TimePoint now) {
  for (Completion& completion : arrived_) {
    std::visit([&](auto& done) { On(done, now); }, completion);
  }
  arrived_.clear();
}

void Pooler::Impl::On(ThreadFailed& done, TimePoint) {
  throw std::runtime_error("worker thread failed: " + done.why);
}

void Pooler::Impl::On(Connected& done, TimePoint now) {
  if (Slot* slot = book_.FindSlot(done.slot); slot != nullptr) {
    slot->socket = done.socket;
    slot->remote_pid = done.remote_pid;
    slot->password_used = done.password_used;
    slot->parameters = std::move(done.parameters);
    book_.OnConnected(slot, now);
  }
}

void Pooler::Impl::On(ConnectFailed& done, TimePoint now) {
  if (Slot* slot = book_.FindSlot(done.slot); slot != nullptr) {
    const FailureScope scope =
        done.pool_limit ? FailureScope::kPool : ScopeOfFailure(done.status.sqlstate());
    book_.OnConnectFailed(slot, done.status, scope, now);
  }
}

void Pooler::Impl::On(RunDone& done, TimePoint now) {
  Slot* slot = book_.FindSlot(done.slot);
  if (slot == nullptr) {
    return;
  }
  if (done.kind == RunKind::kPing) {
    const auto ping = slot_pings_.find(slot->id);
    if (ping != slot_pings_.end()) {
      const std::uint64_t id = ping->second;
      slot_pings_.erase(ping);
      const double milliseconds =
          std::chrono::duration<double, std::milli>(now - pings_.at(id).sent_at).count();
      if (done.status.ok()) {
        FinishPing(id, done.status, milliseconds, now);
      } else if (done.timed_out) {
        FinishPing(id,
                   Status(sqlstate::kConnectionLost, "no answer from datanode \"" +
                                                         slot->pool->node->definition.name +
                                                         "\": " + done.status.message()),
                   milliseconds, now);
      } else {
        PingByStartup(id, pings_.at(id).node, now);  // that connection is at fault, maybe no more
      }
    }
  }
  if (slot->state != SlotState::kWarming && slot->state != SlotState::kResetting &&
      slot->state != SlotState::kChecking) {
    return;
  }
  if (done.status.ok()) {
    slot->parameters = std::move(done.parameters);
    book_.OnReady(slot, now);
  } else if (done.kind == RunKind::kWarm && done.status.sqlstate() != sqlstate::kConnectionLost) {
    book_.OnReady(slot, now);  // the statement is at fault, not the connection
  } else {
    book_.OnBroken(
        slot,
        (done.kind == RunKind::kReset ? "pooler.reset_query failed: " : "") + done.status.message(),
        now);
  }
}

void Pooler::Impl::On(HungUp& done, TimePoint now) {
  if (Slot* slot = book_.FindSlot(done.slot); slot != nullptr) {
    book_.OnBroken(slot, done.why, now);
  }
}

void Pooler::Impl::On(Closed& done, TimePoint) {
  if (Slot* slot = book_.FindSlot(done.slot); slot != nullptr) {
    book_.OnClosed(slot, done.timed_out);
  }
}

void Pooler::Impl::On(Pinged& done, TimePoint now) {
  FinishPing(done.ping, done.status, done.milliseconds, now);
}

// --- pings --------------------------------------------------------------------------------------

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

// On an idle slot of the role's pool, else by a startup without credentials on a helper thread.
void Pooler::Impl::PingNode(std::uint64_t job, std::size_t row, NodeId id, RoleId role,
                            TimePoint now) {
  const std::uint64_t ping = next_ping_++;
  pings_[ping] = {.job = job, .row = row, .node = id, .sent_at = now};
  const MappingEntry* entry = book_.FindMapping(id, role);
  if (entry != nullptr && entry->pool != nullptr) {
    if (Slot* slot = book_.TakeForPing(entry->pool, now); slot != nullptr) {
      slot_pings_[slot->id] = ping;
      RunOn(slot, RunKind::kPing, {""});
      return;
    }
  }
  PingByStartup(ping, id, now);
}

void Pooler::Impl::PingByStartup(std::uint64_t ping, NodeId id, TimePoint now) {
  const Node* node = book_.FindNode(id);
  if (node == nullptr) {
    FinishPing(ping, Status(sqlstate::kUndefinedObject, "datanode is not known to the pooler"), 0,
               now);
    return;
  }
  const NodeDefinition& definition = node->definition;
  const std::string& host = definition.hostaddr.empty() ? definition.host : definition.hostaddr;
  const std::string key = host + ":" + std::to_string(definition.port);
  helpers_.Run(
      "ping " + key, [mailbox = mailbox_, ping, name = definition.name, host = host,
                      port = std::to_string(definition.port),
                      limit = std::to_string(book_.settings().pooler_connect_timeout.count())] {
        const char* keywords[] = {"host",    "port",       "user",
                                  "dbname",  "passfile",   "connect_timeout",
                                  "sslmode", "gssencmode", nullptr};
        const char* values[] = {host.c_str(),    port.c_str(),     "polarx_pooler",
                                "polarx_pooler", "/dev/null/none", limit.c_str(),
                                "disable",       "disable",        nullptr};
        const TimePoint begin = Now();
        const PGPing answer = PQpingParams(keywords, values, 0);
        Status status;
        if (answer == PQPING_REJECT) {
          status = Status(sqlstate::kCannotConnectNow,
                          "datanode \"" + name + "\" is up but accepts no connections now");
        } else if (answer != PQPING_OK) {
          PGconn* conn = PQconnectdbParams(keywords, values, 0);  // says why
          status = ConnectErrorStatus(name, PQerrorMessage(conn));
          PQfinish(conn);
        }
        const double milliseconds =
            std::chrono::duration<double, std::milli>(Now() - begin).count();
        mailbox->completions.Send(Pinged{ping, status, milliseconds});
      });
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
