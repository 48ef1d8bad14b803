// Bytes of sessions come in and go out here; on the main thread.
#include "engine/session_server.h"

#include <algorithm>
#include <cassert>
#include <string>

namespace polarx {
namespace {

constexpr Duration kAttachLimit = std::chrono::seconds(10);
// Descriptors under way are taken in as soon as their session runs: milliseconds.
constexpr Duration kTryAgain = std::chrono::milliseconds(10);
constexpr std::uint32_t kReadEvents = EPOLLIN | EPOLLRDHUP;

}  // namespace

SessionServer::SessionServer(UniqueFd listener, uid_t user, Poller* poller, LogQueue* log,
                             DescriptorBudget* budget)
    : poller_(poller),
      log_(log),
      budget_(budget),
      listener_(std::move(listener), user, poller, log) {}

// --- what comes in ------------------------------------------------------------------------------

void SessionServer::Accept(TimePoint now) {
  for (Guest& guest : listener_.Accept(now)) {
    Admit(std::move(guest), now);
  }
}

void SessionServer::Admit(Guest guest, TimePoint now) {
  const SessionId id = next_session_;
  const int fd = guest.socket.get();
  auto session = std::make_unique<Session>(id, std::move(guest.socket), guest.pid, now);
  if (!poller_->Add(fd, kReadEvents, id)) {
    return;
  }
  ++next_session_;
  budget_->Take();
  unattached_.emplace_back(now + kAttachLimit, id);
  attach_questions_.push_back({.session = id, .pid = guest.pid});
  Session* admitted = sessions_.emplace(id, std::move(session)).first->second.get();
  Read(admitted);  // as a rule its first request has come with it
}

void SessionServer::OnEvents(SessionId id, std::uint32_t events) {
  Session* session = Find(id);
  if (session == nullptr) {
    return;
  }
  if ((events & EPOLLOUT) != 0) {
    to_flush_.push_back(id);
  }
  if ((events & ~std::uint32_t{EPOLLOUT}) != 0) {
    Read(session);
  }
}

void SessionServer::Read(Session* session) {
  std::vector<protocol::Request> requests;
  const Status status = session->Receive(&requests);
  for (protocol::Request& request : requests) {
    arrivals_.push_back({session->id, std::move(request)});
  }
  if (!status.ok()) {
    if (status.sqlstate() == sqlstate::kProtocolViolation) {
      LogViolation(*session, status.message());
    }
    arrivals_.push_back({session->id, std::nullopt});
  }
}

bool SessionServer::NextAttach(AttachQuestion* question) {
  if (attach_questions_.empty()) {
    return false;
  }
  *question = attach_questions_.front();
  attach_questions_.pop_front();
  return true;
}

void SessionServer::AnswerAttach(SessionId id, const Status& status, std::string_view role_name,
                                 LeaseCell* cells) {
  Session* session = Find(id);
  if (session == nullptr) {
    return;
  }
  assert(session->stage == Session::Stage::kNew);
  if (!status.ok()) {
    log_->Push(LogSeverity::kLog,
               "process " + std::to_string(session->pid) + " may not attach to the pooler",
               status.message());
    Send(session, protocol::Failed{0, status});
    Drop(session);
    return;
  }
  session->role_name = role_name;
  session->cells = cells;
  session->stage = Session::Stage::kAsked;
}

// --- sessions -----------------------------------------------------------------------------------

Session* SessionServer::FindAny(SessionId session) const {
  const auto found = sessions_.find(session);
  return found == sessions_.end() ? nullptr : found->second.get();
}

Session* SessionServer::Find(SessionId id) {
  Session* session = FindAny(id);
  return session == nullptr || session->ended ? nullptr : session;
}

std::vector<SessionId> SessionServer::Attached() const {
  std::vector<SessionId> attached;
  for (const auto& [id, session] : sessions_) {
    if (session->stage == Session::Stage::kAttached && !session->ended) {
      attached.push_back(id);
    }
  }
  return attached;
}

int SessionServer::PidOf(SessionId id) const {
  const Session* session = FindAny(id);
  return session == nullptr ? 0 : session->pid;
}

// --- what goes out ------------------------------------------------------------------------------

void SessionServer::Send(Session* session, const protocol::Reply& reply, std::vector<int> fds) {
  assert(!session->ended);
  session->Send(reply, std::move(fds));
  to_flush_.push_back(session->id);
}

void SessionServer::SendFrame(Session* session, std::string frame) {
  assert(!session->ended);
  session->SendFrame(std::move(frame));
  to_flush_.push_back(session->id);
}

void SessionServer::Drop(Session* session) {
  assert(!session->ended);
  session->ended = true;
  dropped_.push_back(session->id);
}

void SessionServer::LogViolation(const Session& session, std::string_view what) {
  log_->Push(LogSeverity::kLog,
             "process " + std::to_string(session.pid) +
                 " broke the protocol of the pooler and is disconnected",
             what);
}

void SessionServer::Flush(TimePoint now) {
  for (SessionId id : to_flush_) {
    if (Session* session = FindAny(id); session != nullptr && session->HasUnsent()) {
      FlushOne(session, now);
    }
  }
  to_flush_.clear();
  for (SessionId id : dropped_) {
    poller_->Remove(FindAny(id)->socket.get());
    sessions_.erase(id);
    budget_->GiveBack();
  }
  dropped_.clear();
}

void SessionServer::FlushOne(Session* session, TimePoint now) {
  const Result<Session::Flushed> flushed = session->Flush();
  if (session->ended) {
    return;
  }
  if (!flushed.ok()) {
    poller_->Remove(session->socket.get());
    arrivals_.push_back({session->id, std::nullopt});  // it ends in the next turn
    return;
  }
  if (flushed.value() == Session::Flushed::kTryLater && !session->awaits_time) {
    session->awaits_time = true;
    to_flush_later_.emplace_back(now + kTryAgain, session->id);
  }
  const bool awaits_room = flushed.value() == Session::Flushed::kFull;
  if (awaits_room != session->awaits_room) {
    session->awaits_room = awaits_room;
    (void)poller_->Change(session->socket.get(), kReadEvents | (awaits_room ? EPOLLOUT : 0u),
                          session->id);
  }
}

// --- time ---------------------------------------------------------------------------------------

// Clients that connect and say nothing would use up descriptors. Nobody wakes for the others' time.
void SessionServer::Expire(TimePoint now) {
  listener_.ListenAgain(now);
  for (; !to_flush_later_.empty() && to_flush_later_.front().first <= now;
       to_flush_later_.pop_front()) {
    if (Session* session = Find(to_flush_later_.front().second); session != nullptr) {
      session->awaits_time = false;
      to_flush_.push_back(session->id);
    }
  }
  for (; !unattached_.empty(); unattached_.pop_front()) {
    const auto [time_is_over, id] = unattached_.front();
    Session* session = Find(id);
    if (session == nullptr || session->stage == Session::Stage::kAttached) {
      continue;
    }
    if (time_is_over > now) {
      return;
    }
    Drop(session);
  }
}

TimePoint SessionServer::NextDeadline() const {
  if (!arrivals_.empty()) {
    return TimePoint{};
  }
  const TimePoint attach = unattached_.empty() ? kNever : unattached_.front().first;
  const TimePoint later = to_flush_later_.empty() ? kNever : to_flush_later_.front().first;
  return std::min({attach, later, listener_.listen_again_at()});
}

}  // namespace polarx
