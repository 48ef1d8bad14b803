// Worker threads are started, told and ended here; on the main thread.
#include "engine/worker_fleet.h"

#include <sched.h>

#include <algorithm>
#include <cassert>
#include <utility>

namespace polarx {
namespace {

constexpr std::size_t kHelperThreads = 64;  // started when needed; a silent node keeps two
constexpr std::size_t kHelperThreadsPerKey = 2;

}  // namespace

WorkerFleet::WorkerFleet() : helpers_(kHelperThreads, kHelperThreadsPerKey) {}

WorkerFleet::~WorkerFleet() { (void)Stop(); }

Status WorkerFleet::Start(int threads, Poller* poller, std::uint64_t wakeup_key,
                          std::uint64_t alarm_key) {
  assert(workers_.empty() && threads > 0);
  if (mailbox_->wakeup.fd() < 0 || alarm_.fd() < 0 ||
      !poller->Add(mailbox_->wakeup.fd(), EPOLLIN, wakeup_key) ||
      !poller->Add(alarm_.fd(), EPOLLIN | EPOLLET, alarm_key)) {
    return Status(sqlstate::kInternalError, "could not set up the epoll set of the pooler");
  }
  for (int index = 0; index < threads; ++index) {
    Result<std::unique_ptr<Worker>> worker =
        Worker::Start(index, &mailbox_->completions, &helpers_);
    if (!worker.ok()) {
      return worker.status();
    }
    workers_.push_back(std::move(worker.value()));
  }
  by_thread_.resize(workers_.size());
  return Status::Ok();
}

// --- connections --------------------------------------------------------------------------------

int WorkerFleet::AddConnection(NodeId node) {
  assert(!workers_.empty());
  const auto needed = static_cast<std::size_t>(connections_) + 1;
  if (left_to_holders_.capacity() < needed) {
    left_to_holders_.reserve(2 * needed);
  }
  std::vector<int>& of_node = by_node_[node];
  of_node.resize(workers_.size());
  std::size_t best = 0;
  for (std::size_t thread = 1; thread < workers_.size(); ++thread) {
    if (std::pair(of_node[thread], by_thread_[thread]) <
        std::pair(of_node[best], by_thread_[best])) {
      best = thread;
    }
  }
  ++of_node[best];
  ++by_thread_[best];
  ++connections_;
  return static_cast<int>(best);
}

void WorkerFleet::RemoveConnection(NodeId node, int thread) {
  const auto index = static_cast<std::size_t>(thread);
  const auto found = by_node_.find(node);
  assert(found != by_node_.end() && found->second[index] > 0);
  --found->second[index];
  --by_thread_[index];
  --connections_;
  if (std::all_of(found->second.begin(), found->second.end(), [](int n) { return n == 0; })) {
    by_node_.erase(found);
  }
}

// --- orders -------------------------------------------------------------------------------------

void WorkerFleet::Send(int thread, Order order, TimePoint due) {
  workers_[static_cast<std::size_t>(thread)]->Send(std::move(order));
  due_ = std::min(due_, due);
}

void WorkerFleet::Flush() {
  for (const std::unique_ptr<Worker>& worker : workers_) {
    worker->Flush();
  }
  due_ = kNever;
}

void WorkerFleet::FlushDue(TimePoint now) {
  if (due_ <= now) {
    Flush();
  } else if (due_ != kNever && due_ != alarm_at_) {
    (void)::sched_yield();  // a session that was answered runs first where it shares this core
    alarm_at_ = due_;
    alarm_.Set(alarm_at_);
  }
}

void WorkerFleet::RunBlocking(const std::string& key, std::function<Completion()> task) {
  helpers_.Run(HelperLane::kPing, key, [mailbox = mailbox_, owned = std::move(task)] {
    mailbox->completions.Send(owned());
  });
}

// --- the end ------------------------------------------------------------------------------------

void WorkerFleet::LeaveToHolder(SlotId slot) noexcept {
  assert(left_to_holders_.size() < left_to_holders_.capacity());
  left_to_holders_.push_back(slot);
}

bool WorkerFleet::Stop() noexcept {
  if (!std::exchange(stopped_, true)) {
    // Told all together, joined one by one.
    for (const std::unique_ptr<Worker>& worker : workers_) {
      worker->Stop(left_to_holders_);
    }
    workers_.clear();
    all_joined_ = helpers_.Stop();
  }
  return all_joined_;
}

}  // namespace polarx
