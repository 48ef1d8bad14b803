// Leases go out to sessions and come back; on the main thread.
#include "engine/session_leases.h"

#include <algorithm>
#include <cassert>
#include <set>
#include <utility>

namespace polarx {
namespace {

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

// Of the parameters that the datanode told the borrower, those that the pooler keeps: what the
// borrower was told, the pooler's own connection never saw.
std::vector<std::string> ToVerify(const protocol::Parameters& known,
                                  const protocol::Parameters& changed) {
  std::vector<std::string> verify;
  for (const auto& [name, value] : changed) {
    if (std::any_of(known.begin(), known.end(),
                    [&name = name](const auto& one) { return one.first == name; })) {
      verify.push_back(name);
    }
  }
  return verify;
}

}  // namespace

// --- what sessions ask for ----------------------------------------------------------------------

const char* SessionLeases::Acquire(Session* session, const protocol::Acquire& acquire,
                                   TimePoint now) {
  for (const protocol::Wanted& wanted : acquire.wanted) {
    if (book_->directory().FindMapping(wanted.node, wanted.role) == nullptr) {
      sessions_->Send(
          session,
          protocol::Failed{acquire.request, Status(sqlstate::kUndefinedObject,
                                                   "datanode is not known to the pooler worker")});
      return nullptr;
    }
  }
  if (acquire.wanted.empty() || NamesTwice(acquire.wanted)) {
    return "an acquire named a node twice, or none";
  }
  if (book_->TicketOf(session->id) != nullptr) {
    return "an acquire came while another one waits";
  }
  for (LeaseId lease : session->granted) {
    (void)book_->CollectReturned(lease, now);
  }
  session->granted_request = 0;
  session->granted.clear();
  book_->Request(session->id, acquire.request, acquire.wanted,
                 std::chrono::milliseconds(acquire.queue_timeout_ms), acquire.sets, now,
                 session->cells);
  return nullptr;
}

void SessionLeases::Withdraw(Session* session, const protocol::Withdraw& withdraw, TimePoint now) {
  if (book_->Withdraw(session->id, withdraw.request) ||
      session->granted_request != withdraw.request) {
    return;
  }
  std::vector<LeaseId> granted = std::exchange(session->granted, {});
  session->granted_request = 0;
  switch (session->SentOfGrant(withdraw.request)) {
    case Session::GrantSent::kNothing:
      session->ReplaceGrant(withdraw.request,
                            protocol::Failed{withdraw.request, Status(sqlstate::kQueryCanceled,
                                                                      "request was withdrawn")});
      session->told_sets = {};  // some were in what has not gone out
      [[fallthrough]];
    case Session::GrantSent::kAll:
      TakeBack(session, granted, now);
      break;
    case Session::GrantSent::kSome:
      // A slot taken back now might be closed before its descriptor has gone out.
      late_.push_back({session->id, withdraw.request, std::move(granted)});
      break;
  }
}

void SessionLeases::TakeBack(Session* session, std::span<const LeaseId> leases, TimePoint now) {
  for (LeaseId lease : leases) {
    if (book_->Return(session->id, lease, now)) {
      session->leases.erase(lease);
    }
  }
}

void SessionLeases::TakeBackLate(TimePoint now) {
  std::erase_if(late_, [&](const LateWithdrawal& late) {
    Session* session = sessions_->Find(late.session);
    if (session != nullptr && session->SentOfGrant(late.request) != Session::GrantSent::kAll) {
      return false;
    }
    if (session != nullptr) {
      TakeBack(session, late.leases, now);
    }
    return true;
  });
}

const char* SessionLeases::Release(Session* session, const protocol::Release& release,
                                   TimePoint now) {
  for (const protocol::Released& released : release.leases) {
    if (session->leases.erase(released.lease) == 0) {
      return "a release named a lease that is not the session's";
    }
    std::erase(session->granted, released.lease);
    if (Slot* slot = book_->FindLease(released.lease); slot != nullptr) {
      (void)book_->Release(session->id, released.lease, released.kind, now,
                           ToVerify(slot->connection.parameters->values, released.changed));
    }
  }
  return nullptr;
}

Slot* SessionLeases::SlotOf(const Session& session, LeaseId lease) {
  Slot* slot = book_->FindLease(lease);
  return slot != nullptr && slot->lease.session == session.id ? slot : nullptr;
}

void SessionLeases::TellCancelled(LeaseId lease, std::uint32_t number) {
  const Slot* slot = book_->FindLease(lease);
  Session* session = slot != nullptr ? sessions_->Find(slot->lease.session) : nullptr;
  if (session != nullptr) {
    sessions_->Send(session, protocol::Cancelled{lease, number});
  }
}

int SessionLeases::CountUsed(const Session& session) {
  return static_cast<int>(
      std::count_if(session.leases.begin(), session.leases.end(), [this](LeaseId lease) {
        const Slot* slot = book_->FindLease(lease);
        return slot != nullptr && !slot->parked();
      }));
}

bool SessionLeases::End(Session* session, TimePoint now) {
  if (const Ticket* ticket = book_->TicketOf(session->id); ticket != nullptr) {
    (void)book_->Withdraw(session->id, ticket->request);
  }
  if (session->SentOfGrant(session->granted_request) == Session::GrantSent::kNothing) {
    TakeBack(session, std::exchange(session->granted, {}), now);
  }
  const std::set<LeaseId> leases = std::exchange(session->leases, {});
  for (LeaseId lease : leases) {
    book_->Abandon(session->id, lease, now);
  }
  return !leases.empty();
}

bool SessionLeases::NextLongLease(polarx::LongLease* lease) {
  if (long_leases_.empty()) {
    return false;
  }
  *lease = std::move(long_leases_.front());
  long_leases_.pop_front();
  return true;
}

// --- LeaseEvents --------------------------------------------------------------------------------

void SessionLeases::Grant(const Ticket& ticket, std::span<Slot* const> slots) {
  Session* session = sessions_->Find(ticket.session);
  assert(session != nullptr);  // the ticket of one that ends is withdrawn
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
  sessions_->Send(session, granted, std::move(fds));
}

void SessionLeases::Reject(const Ticket& ticket, const Status& status) {
  if (Session* session = sessions_->Find(ticket.session); session != nullptr) {
    sessions_->Send(session, protocol::Failed{ticket.request, status});
  }
}

void SessionLeases::Recall(const Slot& slot) {
  if (Session* session = sessions_->Find(slot.lease.session); session != nullptr) {
    sessions_->Send(session, protocol::Recall{{slot.lease.id}});
  }
}

void SessionLeases::Taken(const Slot& slot) {
  if (Session* session = sessions_->Find(slot.lease.session); session != nullptr) {
    session->leases.erase(slot.lease.id);
  }
}

void SessionLeases::LongLease(const Slot& slot, Duration held) {
  long_leases_.push_back({.node = slot.pool->node->definition.name,
                          .remote_user = slot.pool->remote_user,
                          .session_pid = sessions_->PidOf(slot.lease.session),
                          .remote_pid = slot.connection.remote_pid,
                          .seconds = std::chrono::duration<double>(held).count()});
}

}  // namespace polarx
