// The facade of the pooler and its turn: take in, serve, print, flush; on the main thread.
#include "engine/pooler.h"

#include <sched.h>
#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>

#include "engine/pooler_impl.h"

namespace polarx {
namespace {

constexpr std::uint64_t kListenerKey = ~std::uint64_t{0};
constexpr std::uint64_t kWakeupKey = kListenerKey - 1;
constexpr std::uint64_t kAlarmKey = kListenerKey - 2;
constexpr std::size_t kHelperThreads = 64;  // started when needed; a silent node keeps two
constexpr std::size_t kHelperThreadsPerKey = 2;
constexpr Duration kShortestInterval = std::chrono::milliseconds(100);  // stands for 0

std::uint64_t Seed() {
  std::uint64_t seed = 1;
  if (getrandom(&seed, sizeof(seed), GRND_NONBLOCK) != static_cast<ssize_t>(sizeof(seed))) {
    seed = static_cast<std::uint64_t>(Now().time_since_epoch().count());
  }
  return seed;
}

TimePoint After(TimePoint now, std::chrono::seconds interval) {
  return interval < std::chrono::seconds(0) ? kNever
                                            : now + std::max<Duration>(interval, kShortestInterval);
}

}  // namespace

Pooler::Impl::Impl(PoolerConfig config, const Settings& settings)
    : config_(std::move(config)),
      book_(this, this, this, settings, Seed(), config_.node_cells),
      helpers_(kHelperThreads, kHelperThreadsPerKey) {
  const TimePoint now = Now();
  stats_since_ = now;
  next_maintenance_ = After(now, settings.pool_maintenance_timeout);
  next_stat_line_ = After(now, settings.pool_print_stat_timeout);
}

Pooler::Impl::~Impl() { (void)Stop(); }

Status Pooler::Impl::StartThreads() {
  if (poller_.fd() < 0 || mailbox_->wakeup.fd() < 0 || alarm_.fd() < 0 ||
      !poller_.Add(config_.listener.get(), EPOLLIN, kListenerKey) ||
      !poller_.Add(mailbox_->wakeup.fd(), EPOLLIN, kWakeupKey) ||
      !poller_.Add(alarm_.fd(), EPOLLIN | EPOLLET, kAlarmKey)) {
    return Status(sqlstate::kInternalError, "could not set up the epoll set of the pooler");
  }
  for (int index = 0; index < config_.worker_threads; ++index) {
    Result<std::unique_ptr<Worker>> worker =
        Worker::Start(index, &mailbox_->completions, &helpers_);
    if (!worker.ok()) {
      return worker.status();
    }
    workers_.push_back(std::move(worker.value()));
  }
  return Status::Ok();
}

bool Pooler::Impl::Stop() noexcept {
  if (!stopped_) {
    stopped_ = true;
    // Lent connections live on with their holders until those are done.
    for (const auto& [id, pool] : book_.pools()) {
      for (const Slot& slot : pool->list(SlotState::kLeased)) {
        if (PoolBook::KeepsLease(slot)) {
          assert(lent_.size() < lent_.capacity());
          lent_.push_back(slot.id);
        }
      }
    }
    // Told all together, joined one by one.
    for (const std::unique_ptr<Worker>& worker : workers_) {
      worker->Stop(lent_);
    }
    workers_.clear();
    all_joined_ = helpers_.Stop();
  }
  return all_joined_;
}

// --- taking in ----------------------------------------------------------------------------------

void Pooler::Impl::Receive(TimePoint now) {
  for (const epoll_event& event : poller_.Wait(TimePoint{})) {
    if (event.data.u64 == kListenerKey) {
      Accept(now);
    } else if (event.data.u64 == kWakeupKey) {
      mailbox_->wakeup.Clear();
    } else if (Session* session = FindSession(event.data.u64); session != nullptr) {
      if ((event.events & EPOLLOUT) != 0) {
        to_flush_.push_back(session->id);
      }
      if ((event.events & ~EPOLLOUT) != 0) {
        ReadSession(session);
      }
    }
  }
  mailbox_->completions.Receive(&arrived_);
}

void Pooler::Impl::ReadSession(Session* session) {
  std::vector<protocol::Request> requests;
  const Status status = session->Receive(&requests);
  for (protocol::Request& request : requests) {
    NoteMappings(request);  // before the attach is answered: the first acquire comes with it
    const bool first = std::holds_alternative<protocol::Release>(request) ||
                       std::holds_alternative<protocol::Cancel>(request);
    (first ? first_ : second_).push_back({session->id, std::move(request)});
  }
  if (!status.ok()) {
    if (status.sqlstate() == sqlstate::kProtocolViolation) {
      log_.Push(LogSeverity::kLog,
                "process " + std::to_string(session->pid) +
                    " broke the protocol of the pooler and is disconnected",
                status.message());
    }
    hung_up_.push_back(session->id);  // and removed in this turn
  }
}

void Pooler::Impl::NoteMappings(const protocol::Request& request) {
  if (const auto* acquire = std::get_if<protocol::Acquire>(&request)) {
    for (const protocol::Wanted& wanted : acquire->wanted) {
      known_mappings_.insert({wanted.node, wanted.role});
      mapping_questions_.push_back({wanted.node, wanted.role});
    }
  } else if (const auto* ping = std::get_if<protocol::Ping>(&request)) {
    for (NodeId node : ping->nodes) {
      known_mappings_.emplace(node, ping->role);
      mapping_questions_.push_back({node, ping->role});
    }
  } else if (std::holds_alternative<protocol::Reload>(request)) {
    reload_asked_ = true;
  }
}

// --- serving ------------------------------------------------------------------------------------

void Pooler::Impl::Serve(TimePoint now) {
  mapping_questions_.clear();
  Complete(now);
  // Releases first: what they give back may serve a request of the same turn.
  for (std::vector<Pending>* pending : {&first_, &second_}) {
    for (Pending& item : *pending) {
      if (Session* session = FindSession(item.session); session != nullptr && !session->ended) {
        ServeRequest(session, item.request, now);
      }
    }
    pending->clear();
    if (pending == &first_) {
      for (SessionId id : hung_up_) {
        if (Session* session = FindSession(id); session != nullptr) {
          EndSession(session, now);
        }
      }
      hung_up_.clear();
    }
  }
  DropSilent(now);
  ExpirePings(now);
  if (now >= listen_again_ && poller_.Add(config_.listener.get(), EPOLLIN, kListenerKey)) {
    listen_again_ = kNever;
  }
  if (now >= next_maintenance_) {
    book_.Maintain(now);
    next_maintenance_ = After(now, book_.settings().pool_maintenance_timeout);
  }
  book_.EndTurn(Now());  // what serving took so far belongs to the time of an acquire
  if (now >= next_stat_line_) {
    PrintStats();
    next_stat_line_ = After(now, book_.settings().pool_print_stat_timeout);
  }
  FlushSessions();
  FlushDueOrders(now);  // after the replies: a worker thread that wakes takes a core
  if (book_.AwaitsResets()) {
    mailbox_->completions.Await();
  }
  RemoveEnded();
}

void Pooler::Impl::FlushOrders() {
  for (const std::unique_ptr<Worker>& worker : workers_) {
    worker->Flush();
  }
  orders_due_ = kNever;
}

void Pooler::Impl::FlushDueOrders(TimePoint now) {
  if (book_.HurriesResets() || orders_due_ <= now) {
    FlushOrders();
  } else if (orders_due_ != kNever && orders_due_ != alarm_at_) {
    (void)::sched_yield();  // a session that was answered runs first where it shares this core
    alarm_at_ = orders_due_;
    alarm_.Set(alarm_at_);
  }
}

TimePoint Pooler::Impl::NextDeadline() const {
  const TimePoint attach = unattached_.empty() ? kNever : unattached_.front().first;
  return std::min({book_.NextDeadline(), next_maintenance_, next_stat_line_, attach,
                   NextPingDeadline(), listen_again_});
}

void Pooler::Impl::Apply(const Settings& settings, TimePoint now) {
  const Settings& old = book_.settings();
  if (settings.pool_print_stat_timeout != old.pool_print_stat_timeout) {
    next_stat_line_ = After(now, settings.pool_print_stat_timeout);
  }
  next_maintenance_ = After(now, settings.pool_maintenance_timeout);
  book_.Apply(settings, now);
  FlushOrders();
}

Session* Pooler::Impl::FindSession(SessionId session) {
  const auto found = sessions_.find(session);
  return found == sessions_.end() ? nullptr : found->second.get();
}

// A session that is gone gives its waiting request up; in which state it left its leases nobody
// knows, so they are cancelled and closed.
void Pooler::Impl::EndSession(Session* session, TimePoint now) {
  if (session->ended) {
    return;
  }
  session->ended = true;
  ended_.push_back(session->id);
  if (const Ticket* ticket = book_.TicketOf(session->id); ticket != nullptr) {
    (void)book_.Withdraw(session->id, ticket->request);
  }
  for (LeaseId lease : std::exchange(session->leases, {})) {
    book_.Abandon(session->id, lease, now);
    orders_due_ = TimePoint{};  // there is no session whose next steps a reset could delay
  }
}

void Pooler::Impl::RemoveEnded() {
  for (SessionId id : ended_) {
    if (Session* session = FindSession(id); session != nullptr) {
      poller_.Remove(session->socket.get());
      sessions_.erase(id);
    }
  }
  ended_.clear();
}

void Pooler::Impl::Send(Session* session, const protocol::Reply& reply, std::vector<int> fds) {
  session->Send(reply, std::move(fds));
  to_flush_.push_back(session->id);
}

void Pooler::Impl::FlushSessions() {
  for (SessionId id : to_flush_) {
    Session* session = FindSession(id);
    if (session == nullptr) {
      continue;
    }
    if (!session->Flush().ok()) {
      if (!session->ended) {
        poller_.Remove(session->socket.get());
        hung_up_.push_back(id);
      }
      continue;
    }
    if (session->HasUnsent() != session->writing && !session->ended) {
      session->writing = session->HasUnsent();
      (void)poller_.Change(session->socket.get(),
                           EPOLLIN | EPOLLRDHUP | (session->writing ? EPOLLOUT : 0u), id);
    }
  }
  to_flush_.clear();
  if (!hung_up_.empty()) {
    mailbox_->wakeup.Signal();  // they end in the next turn
  }
}

// One point in time reads the same every time, unless the clock was set.
WallClock Pooler::Impl::Wall(TimePoint now) {
  constexpr Duration kClockWasSet = std::chrono::milliseconds(10);
  const Duration wall =
      std::chrono::duration_cast<Duration>(std::chrono::system_clock::now().time_since_epoch());
  const Duration offset = wall - Now().time_since_epoch();
  if (std::chrono::abs(offset - wall_offset_) > kClockWasSet) {
    wall_offset_ = offset;
  }
  return {.steady = now, .unix_microseconds = (now.time_since_epoch() + wall_offset_).count()};
}

void Pooler::Impl::PrintStats() {
  book_.CountParked();
  const RequestCounters& counters = book_.counters();
  log_.Push(LogSeverity::kLog,
            DatabaseStatLine(config_.database, counters.Since(printed_counters_)));
  printed_counters_ = counters;
  for (auto& [id, pool] : book_.pools()) {
    log_.Push(LogSeverity::kLog, PoolStatLine(config_.database, FiguresSinceLastLine(*pool)));
    pool->printed_counters = pool->counters;
    pool->printed_acquire_time = pool->acquire_time;
  }
}

// --- the facade ---------------------------------------------------------------------------------

Result<std::unique_ptr<Pooler>> Pooler::Start(PoolerConfig config, const Settings& settings) {
  auto impl = std::make_unique<Impl>(std::move(config), settings);
  if (const Status status = impl->StartThreads(); !status.ok()) {
    return status;
  }
  return std::unique_ptr<Pooler>(new Pooler(std::move(impl)));
}

Pooler::Pooler(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Pooler::~Pooler() = default;

int Pooler::fd() const { return impl_->poller_.fd(); }
void Pooler::LookOut() { impl_->LookOut(); }
TimePoint Pooler::NextDeadline() const { return impl_->NextDeadline(); }
void Pooler::Receive(TimePoint now) { impl_->Receive(now); }
void Pooler::Serve(TimePoint now) { impl_->Serve(now); }
void Pooler::Apply(const Settings& settings, TimePoint now) { impl_->Apply(settings, now); }
bool Pooler::Stop() noexcept { return impl_->Stop(); }
int Pooler::fds_used() const { return impl_->FdsUsed(); }
bool Pooler::NextLog(LogRecord* record) { return impl_->log_.Pop(record); }

bool Pooler::NextLongLease(LongLease* lease) {
  if (impl_->long_leases_.empty()) {
    return false;
  }
  *lease = std::move(impl_->long_leases_.front());
  impl_->long_leases_.pop_front();
  return true;
}

void Pooler::SetSurvivors(const std::map<NodeId, int>& survivors) {
  impl_->book_.SetSurvivors(survivors);
}

bool Pooler::NextAttach(AttachQuestion* question) {
  if (impl_->attach_questions_.empty()) {
    return false;
  }
  *question = impl_->attach_questions_.front();
  impl_->attach_questions_.pop_front();
  return true;
}

void Pooler::AnswerAttach(SessionId session, const Status& status, std::string_view role_name,
                          LeaseCell* cells) {
  impl_->AnswerAttach(session, status, role_name, cells);
}

bool Pooler::NextMapping(MappingQuestion* question) {
  while (!impl_->mapping_questions_.empty()) {
    *question = impl_->mapping_questions_.back();
    impl_->mapping_questions_.pop_back();
    if (impl_->book_.FindMapping(question->node, question->role) == nullptr) {
      return true;
    }
  }
  return false;
}

void Pooler::AnswerMapping(const NodeDefinition* node, MappingDefinition mapping) {
  impl_->book_.AddMapping(node, std::move(mapping));
}

bool Pooler::NextReload() { return std::exchange(impl_->reload_asked_, false); }
void Pooler::AnswerReload() { impl_->AnswerReload(); }

void Pooler::SetCatalog(const std::vector<NodeDefinition>& nodes,
                        std::vector<MappingDefinition> mappings, TimePoint now) {
  impl_->book_.SetCatalog(nodes, std::move(mappings), now);
  impl_->FlushOrders();
}

std::vector<MappingQuestion> Pooler::KnownMappings() const {
  std::vector<MappingQuestion> known;
  for (const auto& [node, role] : impl_->known_mappings_) {
    known.push_back({node, role});
  }
  return known;
}

}  // namespace polarx
