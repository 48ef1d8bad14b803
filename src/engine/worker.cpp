// One worker thread: its loop over orders, sockets, lookups and deadlines.
#include "engine/worker.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <set>
#include <thread>
#include <unordered_map>
#include <utility>

#include "engine/datanode.h"
#include "engine/poller.h"
#include "engine/signal_mask.h"

namespace polarx {
namespace {

struct LookedUp {
  SlotId slot = 0;
  LookupResult result;
};

struct CancelSent {
  SlotId slot = 0;
};

using Answer = std::variant<LookedUp, CancelSent>;  // of a helper thread

}  // namespace

struct Worker::Inbox {
  Wakeup wakeup;
  Channel<Order> orders{&wakeup};
  Channel<Answer> answers{&wakeup};
  std::atomic<bool> stop{false};
  std::span<const SlotId> lent;  // constant once `stop` is set
};

namespace {

// Everything on the worker thread.
class Loop : public DatanodeHost {
 public:
  Loop(std::shared_ptr<Worker::Inbox> inbox, Channel<Completion>* completions, HelperPool* helpers)
      : inbox_(std::move(inbox)), completions_(completions), helpers_(helpers) {
    last_word_.emplace_back(ThreadFailed{std::string(kLastWord)});
  }

  // False: the system refuses the descriptors that it needs.
  bool Prepare() {
    return poller_.fd() >= 0 && inbox_->wakeup.fd() >= 0 &&
           poller_.Add(inbox_->wakeup.fd(), EPOLLIN, kInboxKey);
  }

  void Run() {
    while (!stopping_ || (!connections_.empty() && Now() < stop_at_)) {
      const TimePoint next = deadlines_.empty() ? kNever : deadlines_.begin()->first;
      for (const epoll_event& event : poller_.Wait(std::min(next, stop_at_))) {
        if (event.data.u64 == kInboxKey) {
          ReadInbox();
        } else if (Datanode* datanode = Find(event.data.u64); datanode != nullptr) {
          datanode->OnEvents(event.events);
          Forget(event.data.u64);
        }
      }
      Expire();
      if (!reported_.empty()) {
        const bool urgent = !std::all_of(reported_.begin(), reported_.end(), Keeps);
        completions_->SendAll(&reported_, urgent);
      }
    }
  }

  // Memory is used up. Tells the main thread and says nothing more to anybody: at PQfinish libpq
  // would say goodbye in the middle of what sessions send on lent connections. So the connections
  // stay as they are until the process ends; `self` is this loop.
  void Fail(std::shared_ptr<Loop> self) noexcept {
    static std::atomic<Loop*> failed{nullptr};
    self_ = std::move(self);
    next_failed_ = failed.exchange(this);
    // Telling needs memory only if the main thread has not fetched what was told before.
    for (int tries = 0; tries < 1000 && !inbox_->stop; ++tries) {
      try {
        completions_->SendAll(&last_word_);
        return;
      } catch (...) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
    }
  }

  // DatanodeHost
  void Watch(int fd, std::uint32_t events, SlotId slot) override {
    // Refused only when memory is used up: the connection then runs into its deadline.
    (void)poller_.Add(fd, events, slot);
  }
  void Rewatch(int fd, std::uint32_t events, SlotId slot) override {
    (void)poller_.Change(fd, events, slot);
  }
  void Unwatch(int fd) override { poller_.Remove(fd); }

  void SetDeadline(SlotId slot, TimePoint deadline) override {
    TimePoint& current = connections_.at(slot).deadline;
    if (current != kNever) {
      deadlines_.erase({current, slot});
    }
    current = deadline;
    if (deadline != kNever) {
      deadlines_.emplace(deadline, slot);
    }
  }

  void LookUp(SlotId slot, const std::string& host) override {
    connections_.at(slot).lookup =
        helpers_->names().Ask(host, [inbox = inbox_, slot](const LookupResult& result) {
          inbox->answers.Send(LookedUp{slot, result});
        });
  }

  void RunCancel(SlotId slot, const std::string& key, PGcancel* cancel) override {
    helpers_->Run(HelperLane::kCancel, key,
                  [inbox = inbox_, slot, owned = std::shared_ptr<PGcancel>(cancel, PQfreeCancel)] {
                    char error[256];
                    PQcancel(owned.get(), error, sizeof(error));
                    inbox->answers.Send(CancelSent{slot});
                  });
  }

  void Report(Completion completion) override { reported_.push_back(std::move(completion)); }
  TransactionTimeouts* transaction_timeouts() override { return &transaction_timeouts_; }

 private:
  static constexpr std::uint64_t kInboxKey = 0;  // slots count from 1
  static constexpr Duration kStopLimit = std::chrono::milliseconds(500);
  static constexpr std::string_view kLastWord = "out of memory";

  // A connection that has been reset may wait until somebody wants one.
  static bool Keeps(const Completion& completion) {
    const auto* done = std::get_if<RunDone>(&completion);
    return done != nullptr && done->kind == RunKind::kReset && done->status.ok();
  }

  struct Connection {
    std::unique_ptr<Datanode> datanode;
    TimePoint deadline = kNever;
    std::uint64_t lookup = 0;  // ticket of the one that is awaited
  };

  Datanode* Find(SlotId slot) {
    const auto found = connections_.find(slot);
    return found == connections_.end() ? nullptr : found->second.datanode.get();
  }

  void Forget(SlotId slot) {
    const auto found = connections_.find(slot);
    if (found != connections_.end() && found->second.datanode->finished()) {
      LeaveLookup(found->second);
      connections_.erase(found);
    }
  }

  void LeaveLookup(const Connection& connection) {
    if (connection.lookup != 0) {
      helpers_->names().Leave(connection.lookup);
    }
  }

  void ReadInbox() {
    inbox_->wakeup.Clear();
    // Read first: orders that were sent before it are carried out before it.
    const bool stop = inbox_->stop.load(std::memory_order_acquire);
    inbox_->orders.Receive(&orders_);
    for (Order& order : orders_) {
      std::visit([this](auto& value) { Obey(value); }, order);
    }
    orders_.clear();
    std::vector<Answer> answers;
    inbox_->answers.Receive(&answers);
    for (Answer& answer : answers) {
      std::visit([this](auto& value) { Take(value); }, answer);
    }
    if (stop) {
      BeginStop(inbox_->lent);
    }
  }

  void Take(const LookedUp& answer) {
    if (Datanode* datanode = Find(answer.slot); datanode != nullptr) {
      connections_.at(answer.slot).lookup = 0;
      datanode->OnLookedUp(answer.result.addresses, answer.result.error);
      Forget(answer.slot);
    }
  }
  void Take(const CancelSent& answer) {
    if (Datanode* datanode = Find(answer.slot); datanode != nullptr) {
      datanode->OnCancelled();
      Forget(answer.slot);
    }
  }

  void Obey(ConnectOrder& order) {
    const SlotId slot = order.slot;
    Connection& connection = connections_[slot];
    connection.datanode = std::make_unique<Datanode>(this, slot);
    connection.datanode->Connect(std::move(order));
    Forget(slot);
  }
  void Obey(RunOrder& order) {
    if (Datanode* datanode = Find(order.slot); datanode != nullptr) {
      datanode->Run(std::move(order));
    }
  }
  void Obey(CancelOrder& order) {
    if (Datanode* datanode = Find(order.slot); datanode != nullptr) {
      datanode->Cancel(order);
    }
  }
  void Obey(CloseOrder& order) {
    if (Datanode* datanode = Find(order.slot); datanode != nullptr) {
      datanode->Close(order);
      Forget(order.slot);
    }
  }

  void BeginStop(std::span<const SlotId> lent) {
    if (stopping_) {
      return;
    }
    for (SlotId slot : lent) {
      if (Datanode* datanode = Find(slot); datanode != nullptr) {
        datanode->Abandon();
        Drop(slot);
      }
    }
    // The next pooler worker counts on it that these connections are gone.
    stopping_ = true;
    stop_at_ = Now() + kStopLimit;
    for (auto next = connections_.begin(); next != connections_.end();) {
      const SlotId slot = next->first;
      Datanode* datanode = next->second.datanode.get();
      ++next;  // the connection may go
      if (datanode->open()) {
        datanode->Close({.slot = slot, .cancel = false, .deadline = stop_at_});
        Forget(slot);
      } else if (!datanode->closing()) {
        Drop(slot);
      }
    }
  }

  void Drop(SlotId slot) {
    SetDeadline(slot, kNever);
    LeaveLookup(connections_.at(slot));
    connections_.erase(slot);
  }

  void Expire() {
    const TimePoint now = Now();
    while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
      const SlotId slot = deadlines_.begin()->second;
      deadlines_.erase(deadlines_.begin());
      Connection& connection = connections_.at(slot);
      connection.deadline = kNever;
      connection.datanode->OnDeadline();
      Forget(slot);
    }
  }

  const std::shared_ptr<Worker::Inbox> inbox_;
  Channel<Completion>* const completions_;
  HelperPool* const helpers_;
  Poller poller_;
  std::set<std::pair<TimePoint, SlotId>> deadlines_;
  std::unordered_map<SlotId, Connection> connections_;
  std::vector<Order> orders_;          // being carried out
  std::vector<Completion> reported_;   // of this round of the loop
  std::vector<Completion> last_word_;  // made while there was memory
  std::shared_ptr<Loop> self_;         // after Fail: for ever
  Loop* next_failed_ = nullptr;
  TransactionTimeouts transaction_timeouts_;
  bool stopping_ = false;
  TimePoint stop_at_ = kNever;
};

}  // namespace

Result<std::unique_ptr<Worker>> Worker::Start(int index, Channel<Completion>* completions,
                                              HelperPool* helpers) {
  std::unique_ptr<Worker> worker(new Worker);
  worker->inbox_ = std::make_shared<Inbox>();
  auto loop = std::make_shared<Loop>(worker->inbox_, completions, helpers);
  if (!loop->Prepare()) {
    return Status(sqlstate::kOutOfDescriptors, "no descriptors for a worker thread of the pooler");
  }
  Result<std::thread> thread =
      StartThread("pooler-w" + std::to_string(index), [owned = std::move(loop)] {
        try {
          owned->Run();
        } catch (...) {
          owned->Fail(owned);
        }
      });
  if (!thread.ok()) {
    return thread.status();
  }
  worker->thread_ = std::move(thread.value());
  return worker;
}

Worker::~Worker() {
  if (thread_.joinable()) {
    Stop({});
    thread_.join();
  }
}

void Worker::Stop(std::span<const SlotId> lent) noexcept {
  if (!inbox_->stop.load(std::memory_order_relaxed)) {  // only this thread sets it
    inbox_->lent = lent;
    inbox_->stop.store(true, std::memory_order_release);
    inbox_->wakeup.Signal();
  }
}

void Worker::Send(Order order) { outbox_.push_back(std::move(order)); }

void Worker::Flush() {
  if (!outbox_.empty()) {
    inbox_->orders.SendAll(&outbox_);
  }
}

}  // namespace polarx
