// What sessions ask for, request by request; on the main thread.
#include <algorithm>

#include "engine/pooler_impl.h"

namespace polarx {
namespace {

// A session has one request under way, and a few that it gave up.
constexpr int kMostUnsentAnswers = 256;

template <typename... Handlers>
struct Overloaded : Handlers... {
  using Handlers::operator()...;
};
template <typename... Handlers>
Overloaded(Handlers...) -> Overloaded<Handlers...>;

bool NamesTwice(const std::vector<protocol::Wanted>& wanted) {
  if (wanted.size() < 2) {
    return false;
  }
  std::set<NodeId> nodes;
  for (const protocol::Wanted& want : wanted) {
    nodes.insert(want.node);
  }
  return nodes.size() != wanted.size();
}

}  // namespace

void Pooler::Impl::ServeRequest(Session* session, const protocol::Request& request, TimePoint now) {
  if (session->stage != Session::Stage::kAttached &&
      !std::holds_alternative<protocol::Attach>(request)) {
    Violation(session, "a request came before the attach", now);
    return;
  }
  if (session->unsent_answers() > kMostUnsentAnswers) {
    Violation(session, "it asks and does not read the answers", now);
    return;
  }
  std::visit(
      Overloaded{
          [&](const protocol::Attach& attach) { HandleAttach(session, attach, now); },
          [&](const protocol::Acquire& acquire) { HandleAcquire(session, acquire, now); },
          [&](const protocol::Withdraw& withdraw) { HandleWithdraw(session, withdraw, now); },
          [&](const protocol::Release& release) { HandleRelease(session, release, now); },
          [&](const protocol::Cancel& cancel) { HandleCancel(session, cancel, now); },
          [&](const protocol::Show& show) { HandleShow(session, show, now); },
          [&](const protocol::Ping& ping) { HandlePing(session, ping, now); },
          [&](const protocol::Clean& clean) {
            const int count = book_.Clean(clean.node, clean.remote_user, now);
            Send(session, protocol::Done{clean.request, count});
          },
          [&](const protocol::Pause& pause) {
            book_.Pause(pause.node, pause.paused, now);
            Send(session, protocol::Done{pause.request, 0});
          },
          [&](const protocol::ResetStats& reset) {
            book_.ResetStats();
            printed_counters_ = {};
            stats_since_ = now;
            Send(session, protocol::Done{reset.request, 0});
          },
          [&](const protocol::Check& check) {
            Send(session, protocol::Done{check.request, book_.Matches(check.nodes) ? 1 : 0});
          },
          // Recalls were sent when the catalog was taken in, before this turn's requests.
          [&](const protocol::Confirm& confirm) {
            Send(session, protocol::Done{confirm.request, 0});
          },
          [&](const protocol::Reload& reload) {
            reloads_.emplace_back(session->id, reload.request);
            AnswerReload();
          },
      },
      request);
}

// That client alone ends.
void Pooler::Impl::Violation(Session* session, const char* what, TimePoint now) {
  log_.Push(LogSeverity::kLog,
            "process " + std::to_string(session->pid) +
                " broke the protocol of the pooler and is disconnected",
            what);
  EndSession(session, now);
}

// --- attach -------------------------------------------------------------------------------------

void Pooler::Impl::AnswerAttach(SessionId id, const Status& status, std::string_view role_name,
                                LeaseCell* cells) {
  Session* session = FindSession(id);
  if (session == nullptr) {
    return;
  }
  if (!status.ok()) {
    log_.Push(LogSeverity::kLog,
              "process " + std::to_string(session->pid) + " may not attach to the pooler",
              status.message());
    Send(session, protocol::Failed{0, status});
    FlushSessions();
    EndSession(session, Now());
    return;
  }
  session->role_name = role_name;
  session->cells = cells;
  session->stage = Session::Stage::kAsked;
}

void Pooler::Impl::HandleAttach(Session* session, const protocol::Attach& attach, TimePoint now) {
  if (attach.version != protocol::kVersion || attach.generation != config_.generation ||
      session->stage != Session::Stage::kAsked) {
    Send(session, protocol::Failed{0, Status(sqlstate::kCannotConnectNow,
                                             "this pooler worker is not the one asked for")});
    EndSession(session, now);
    return;
  }
  session->stage = Session::Stage::kAttached;
  Send(session, protocol::Attached{config_.generation});
}

void Pooler::Impl::AnswerReload() {
  for (const auto& [id, request] : reloads_) {
    if (Session* session = FindSession(id); session != nullptr) {
      Send(session, protocol::Done{request, 0});
    }
  }
  reloads_.clear();
}

// --- leases -------------------------------------------------------------------------------------

void Pooler::Impl::HandleAcquire(Session* session, const protocol::Acquire& acquire,
                                 TimePoint now) {
  for (const protocol::Wanted& wanted : acquire.wanted) {
    if (book_.FindMapping(wanted.node, wanted.role) == nullptr) {
      Send(session,
           protocol::Failed{acquire.request, Status(sqlstate::kUndefinedObject,
                                                    "datanode is not known to the pooler worker")});
      return;
    }
  }
  if (acquire.wanted.empty() || NamesTwice(acquire.wanted)) {
    Violation(session, "an acquire named a node twice, or none", now);
    return;
  }
  if (book_.TicketOf(session->id) != nullptr) {
    Violation(session, "an acquire came while another one waits", now);
    return;
  }
  for (LeaseId lease : session->granted) {
    (void)book_.CollectReturned(lease, now);
  }
  session->granted_request = 0;
  session->granted.clear();
  book_.Request(session->id, acquire.request, acquire.wanted,
                std::chrono::milliseconds(acquire.queue_timeout_ms), acquire.sets, now,
                session->cells);
}

void Pooler::Impl::HandleWithdraw(Session* session, const protocol::Withdraw& withdraw,
                                  TimePoint now) {
  if (book_.Withdraw(session->id, withdraw.request) ||
      session->granted_request != withdraw.request) {
    return;
  }
  if (session->HasUnsent()) {
    // A slot taken back now might be closed before its descriptor has gone out.
    EndSession(session, now);
    return;
  }
  // Granted already: the session throws the descriptors away unseen.
  for (LeaseId lease : session->granted) {
    if (book_.Return(session->id, lease, now)) {
      session->leases.erase(lease);
    }
  }
  session->granted.clear();
}

void Pooler::Impl::HandleRelease(Session* session, const protocol::Release& release,
                                 TimePoint now) {
  for (const protocol::Released& released : release.leases) {
    if (session->leases.erase(released.lease) == 0) {
      Violation(session, "a release named a lease that is not the session's", now);
      return;
    }
    std::erase(session->granted, released.lease);
    if (Slot* slot = book_.FindLease(released.lease); slot != nullptr) {
      // What the datanode told the borrower, the pooler's own connection never saw.
      std::vector<std::string> verify;
      for (const auto& changed : released.changed) {
        const protocol::Parameters& values = slot->connection.parameters->values;
        if (std::any_of(values.begin(), values.end(),
                        [&](const auto& known) { return known.first == changed.first; })) {
          verify.push_back(changed.first);
        }
      }
      (void)book_.Release(session->id, released.lease, released.kind, now, std::move(verify));
    }
  }
}

void Pooler::Impl::HandleCancel(Session* session, const protocol::Cancel& cancel, TimePoint now) {
  Slot* slot = book_.FindLease(cancel.lease);
  if (slot == nullptr || slot->lease.session != session->id) {
    return;  // given back meanwhile
  }
  Send(*slot, CancelOrder{slot->id, now + book_.settings().pooler_dn_set_timeout});
}

void Pooler::Impl::Grant(const Ticket& ticket, std::span<Slot* const> slots) {
  Session* session = FindSession(ticket.session);
  protocol::Granted granted{ticket.request, {}};
  std::vector<int> fds;
  session->granted_request = ticket.request;
  for (const Slot* slot : slots) {
    const ParameterSet& set = *slot->connection.parameters;
    const bool told = !session->told_sets.MustTell(set.id);
    granted.leases.push_back({.lease = slot->lease.id,
                              .slot = slot->id,
                              .pool = slot->pool->id,
                              .backend_pid = slot->connection.remote_pid,
                              .cell = slot->parking.cell_index,
                              .node_cell = slot->pool->node->cell_index,
                              .parameter_set = set.id,
                              .told = told,
                              .parameters = told ? protocol::Parameters() : set.values});
    fds.push_back(slot->connection.socket);
    session->leases.insert(slot->lease.id);
    session->granted.push_back(slot->lease.id);
  }
  Send(session, granted, std::move(fds));
}

void Pooler::Impl::Reject(const Ticket& ticket, const Status& status) {
  if (Session* session = FindSession(ticket.session); session != nullptr && !session->ended) {
    Send(session, protocol::Failed{ticket.request, status});
  }
}

void Pooler::Impl::Recall(const Slot& slot) {
  if (Session* session = FindSession(slot.lease.session); session != nullptr && !session->ended) {
    Send(session, protocol::Recall{{slot.lease.id}});
  }
}

void Pooler::Impl::Taken(const Slot& slot) {
  if (Session* session = FindSession(slot.lease.session); session != nullptr) {
    session->leases.erase(slot.lease.id);
  }
}

int Pooler::Impl::SessionPid(SessionId id) {
  const Session* session = FindSession(id);
  return session != nullptr ? session->pid : 0;
}

// --- views and pings ----------------------------------------------------------------------------

void Pooler::Impl::HandleShow(Session* session, const protocol::Show& show, TimePoint now) {
  const WallClock clock = Wall(now);
  protocol::Rows rows{show.request, {}};
  (void)book_.CollectReturned(now);
  book_.CountParked();
  switch (show.view) {
    case protocol::View::kNodes:
      rows.rows = NodeRows(book_, clock);
      break;
    case protocol::View::kPools:
      rows.rows = PoolRows(book_, clock);
      break;
    case protocol::View::kConnections:
      rows.rows = ConnectionRows(book_, this, clock);
      break;
    case protocol::View::kSessions:
      rows.rows = SessionRows(clock);
      break;
    case protocol::View::kStats:
      rows.rows.push_back(StatsRow(book_.counters(), stats_since_, clock));
      break;
  }
  Send(session, rows);
}

std::vector<protocol::Row> Pooler::Impl::SessionRows(const WallClock& clock) {
  std::vector<protocol::Row> rows;
  for (const auto& [id, session] : sessions_) {
    if (session->stage != Session::Stage::kAttached || session->ended) {
      continue;
    }
    const auto used =
        std::count_if(session->leases.begin(), session->leases.end(), [this](LeaseId lease) {
          const Slot* slot = book_.FindLease(lease);
          return slot != nullptr && !slot->parked();
        });
    protocol::Row row{std::to_string(session->pid), session->role_name, std::to_string(used)};
    if (const Ticket* ticket = book_.TicketOf(id); ticket != nullptr) {
      row.emplace_back(ticket->wants.front().pool->node->definition.name);
      row.push_back(TimestampText(ticket->arrived_at, clock));
    } else {
      row.resize(5);
    }
    row.push_back(TimestampText(session->attached_at, clock));
    rows.push_back(std::move(row));
  }
  return rows;
}

}  // namespace polarx
