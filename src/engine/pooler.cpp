// The parts of the pooler and the order of their turn; on the main thread.
#include "engine/pooler.h"

#include <sys/random.h>

#include <algorithm>
#include <stdexcept>
#include <type_traits>
#include <utility>
#include <variant>

#include "core/deadlock_watch.h"
#include "core/pool_book.h"
#include "engine/busy_wait.h"
#include "engine/descriptor_budget.h"
#include "engine/ping_desk.h"
#include "engine/poller.h"
#include "engine/pooler_deadlocks.h"
#include "engine/pooler_pings.h"
#include "engine/requests.h"
#include "engine/session_leases.h"
#include "engine/session_server.h"
#include "engine/slot_orders.h"
#include "engine/stat_printer.h"
#include "engine/view_answers.h"
#include "engine/worker_fleet.h"

namespace polarx {
namespace {

// Keys of the epoll set; sessions count from 1.
constexpr std::uint64_t kListenerKey = ~std::uint64_t{0};
constexpr std::uint64_t kWakeupKey = kListenerKey - 1;
constexpr std::uint64_t kAlarmKey = kListenerKey - 2;

// Listener, epoll set, wake-up, alarm, the server's own few; and two of each worker thread.
constexpr int kOwnDescriptors = 16;
constexpr int kDescriptorsAThread = 2;

std::uint64_t Seed() {
  std::uint64_t seed = 1;
  if (getrandom(&seed, sizeof(seed), GRND_NONBLOCK) != static_cast<ssize_t>(sizeof(seed))) {
    seed = static_cast<std::uint64_t>(Now().time_since_epoch().count());
  }
  return seed;
}

}  // namespace

class Pooler::Parts : public Surroundings {
 public:
  Parts(PoolerConfig&& config, const Settings& settings, TimePoint now)
      : database(std::move(config.database)),
        budget(config.fd_limit, kOwnDescriptors + kDescriptorsAThread * config.worker_threads),
        sessions(std::move(config.listener), config.user, &poller, &log, &budget),
        slots(&book, &fleet, &budget),
        leases(&book, &sessions),
        ping_driver(&book, &slots, &fleet, &sessions),
        pings(&ping_driver),
        stats(&log, database, settings, now),
        deadlocks(&book, &slots, &sessions, &leases, &log),
        watch(&deadlocks, stats.events()),
        views(&book, &sessions, &leases, &stats),
        requests({.book = &book,
                  .sessions = &sessions,
                  .leases = &leases,
                  .slots = &slots,
                  .fleet = &fleet,
                  .pings = &pings,
                  .views = &views,
                  .stats = &stats,
                  .deadlocks = &deadlocks,
                  .watch = &watch},
                 config.generation),
        book(&slots, &leases, this, settings, Seed(), config.node_cells),
        next_maintenance_(AfterInterval(now, settings.pool_maintenance_timeout)) {
    watch.Apply(settings.detect_deadlocks, settings.deadlock_timeout);
  }
  ~Parts() override { (void)Stop(); }

  Status Start(int threads);
  bool Stop() noexcept;
  void Receive(TimePoint now);
  void Serve(TimePoint now);
  void Apply(const Settings& settings, TimePoint now);
  TimePoint NextDeadline() const;

  // Surroundings
  Status RoomFor(const Node& node) override {
    return budget.RoomFor("a connection to datanode \"" + node.definition.name + "\"");
  }
  int SessionPid(SessionId session) override { return sessions.PidOf(session); }
  void Log(const std::string& message, const std::string& detail) override {
    log.Push(LogSeverity::kLog, message, detail);
  }

  // Later ones know earlier ones, and all know the book.
  const std::string database;
  Poller poller;
  LogQueue log;
  DescriptorBudget budget;
  SessionServer sessions;
  WorkerFleet fleet;
  SlotOrders slots;
  SessionLeases leases;
  PoolerPings ping_driver;
  PingDesk pings;
  StatPrinter stats;
  PoolerDeadlocks deadlocks;
  DeadlockWatch watch;
  ViewAnswers views;
  Requests requests;
  PoolBook book;
  BusyPoll busy_poll;  // of the waits for poller

 private:
  void Complete(TimePoint now);

  std::vector<Completion> completions_;
  TimePoint next_maintenance_;
  bool stopped_ = false;
};

Status Pooler::Parts::Start(int threads) {
  if (poller.fd() < 0 || !sessions.Start(kListenerKey)) {
    return Status(sqlstate::kInternalError, "could not set up the epoll set of the pooler");
  }
  return fleet.Start(threads, &poller, kWakeupKey, kAlarmKey);
}

// Lent connections live on with their holders until those are done.
bool Pooler::Parts::Stop() noexcept {
  if (!std::exchange(stopped_, true)) {
    for (const auto& [id, pool] : book.directory().pools()) {
      for (const Slot& slot : pool->list(SlotState::kLeased)) {
        if (LeaseTable::BarFromParking(slot)) {
          fleet.LeaveToHolder(slot.id);
        }
      }
    }
  }
  return fleet.Stop();
}

void Pooler::Parts::Receive(TimePoint now) {
  for (const epoll_event& event : poller.Wait(TimePoint{})) {
    switch (event.data.u64) {
      case kListenerKey:
        sessions.Accept(now);
        break;
      case kWakeupKey:
        fleet.OnWakeup();
        break;
      case kAlarmKey:
        fleet.OnAlarm();
        break;
      default:
        sessions.OnEvents(event.data.u64, event.events);
    }
  }
  requests.Take(sessions.TakeArrivals(), now);
  fleet.Receive(&completions_);
}

void Pooler::Parts::Serve(TimePoint now) {
  Complete(now);
  requests.Serve(now);
  sessions.Expire(now);
  pings.Expire(now);
  watch.Serve(now);
  views.Continue(now);
  if (now >= next_maintenance_) {
    book.Maintain(now);
    next_maintenance_ = AfterInterval(now, book.settings().pool_maintenance_timeout);
  }
  book.EndTurn(Now());  // what serving took so far belongs to the time of an acquire
  stats.PrintDue(&book, now);
  sessions.Flush(now);
  const Urgency urgency = book.TakeUrgencyOfResets();
  if (urgency != Urgency::kMayWait) {
    fleet.Hurry();
  }
  fleet.FlushDue(Now());  // after the replies: a worker thread that wakes takes a core
  if (urgency == Urgency::kAwaited) {
    fleet.Await();
  }
}

void Pooler::Parts::Complete(TimePoint now) {
  const auto take = [&](auto& done) {
    using T = std::remove_reference_t<decltype(done)>;
    if constexpr (std::is_same_v<T, ThreadFailed>) {
      throw std::runtime_error("worker thread failed: " + done.why);
    } else if constexpr (std::is_same_v<T, Pinged>) {
      pings.OnStartupAnswer(done.ping, done.status, done.milliseconds, now);
    } else if constexpr (std::is_same_v<T, CancelThrough>) {
      leases.TellCancelled(done.lease, done.number);
    } else {
      slots.On(done, now);
    }
  };
  for (Completion& completion : completions_) {
    std::visit(take, completion);
  }
  completions_.clear();
  for (const SlotOrders::PingAnswer& answer : slots.TakeAnswers()) {
    pings.OnSlotAnswer(answer.ping, answer.status, now);
  }
  deadlocks.Deliver(&watch);
}

void Pooler::Parts::Apply(const Settings& settings, TimePoint now) {
  stats.Apply(settings, now);
  next_maintenance_ = AfterInterval(now, settings.pool_maintenance_timeout);
  book.Apply(settings, now);
  watch.Apply(settings.detect_deadlocks, settings.deadlock_timeout);
  fleet.Flush();
}

TimePoint Pooler::Parts::NextDeadline() const {
  if (views.busy()) {
    return TimePoint{};
  }
  return std::min({book.NextDeadline(), next_maintenance_, stats.next_at(), sessions.NextDeadline(),
                   pings.NextDeadline(), watch.NextDeadline()});
}

// --- the facade ---------------------------------------------------------------------------------

Result<std::unique_ptr<Pooler>> Pooler::Start(PoolerConfig config, const Settings& settings) {
  const int threads = config.worker_threads;
  auto parts = std::make_unique<Parts>(std::move(config), settings, Now());
  if (const Status status = parts->Start(threads); !status.ok()) {
    return status;
  }
  return std::unique_ptr<Pooler>(new Pooler(std::move(parts)));
}

Pooler::Pooler(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
Pooler::~Pooler() = default;

int Pooler::fd() const { return parts_->poller.fd(); }
void Pooler::LookOut() { (void)WaitBusily(fd(), &parts_->busy_poll); }
TimePoint Pooler::NextDeadline() const { return parts_->NextDeadline(); }
void Pooler::Receive(TimePoint now) { parts_->Receive(now); }
void Pooler::Serve(TimePoint now) { parts_->Serve(now); }
void Pooler::Apply(const Settings& settings, TimePoint now) { parts_->Apply(settings, now); }
bool Pooler::Stop() noexcept { return parts_->Stop(); }
int Pooler::fds_used() const { return parts_->budget.used(); }
bool Pooler::NextLog(LogRecord* record) { return parts_->log.Pop(record); }
bool Pooler::NextLongLease(LongLease* lease) { return parts_->leases.NextLongLease(lease); }
bool Pooler::NextAttach(AttachQuestion* question) { return parts_->sessions.NextAttach(question); }

void Pooler::AnswerAttach(SessionId session, const Status& status, std::string_view role_name,
                          LeaseCell* cells) {
  parts_->sessions.AnswerAttach(session, status, role_name, cells);
}

bool Pooler::NextMapping(MappingQuestion* question) {
  return parts_->requests.NextMapping(question);
}

void Pooler::AnswerMapping(const NodeDefinition* node, MappingDefinition mapping, TimePoint now) {
  parts_->book.AddMapping(node, std::move(mapping), now);
}

bool Pooler::NextLocalWaits(std::vector<int>* processes) {
  return parts_->watch.NextLocalWaits(processes);
}

void Pooler::AnswerLocalWaits(const std::vector<WaitEdge>& edges) {
  parts_->watch.AnswerLocalWaits(edges);
}

bool Pooler::TakeReload() { return parts_->requests.TakeReload(); }

void Pooler::SetCatalog(const std::vector<NodeDefinition>& nodes,
                        std::vector<MappingDefinition> mappings, TimePoint now) {
  parts_->book.SetCatalog(nodes, std::move(mappings), now);
  parts_->fleet.Flush();
}

std::vector<MappingQuestion> Pooler::KnownMappings(TimePoint now) {
  return parts_->book.KnownPairs(now);
}

void Pooler::SetSurvivors(const std::map<NodeId, int>& survivors) {
  parts_->book.SetSurvivors(survivors);
}

}  // namespace polarx
