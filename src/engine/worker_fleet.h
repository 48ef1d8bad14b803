// The pooler's worker threads and helper threads: what is ordered of them, what they report, and
// their end; on the main thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/node.h"
#include "core/time.h"
#include "engine/alarm.h"
#include "engine/channel.h"
#include "engine/helper.h"
#include "engine/orders.h"
#include "engine/poller.h"
#include "engine/worker.h"

namespace polarx {

class WorkerFleet {
 public:
  WorkerFleet();
  ~WorkerFleet();  // as Stop
  WorkerFleet(const WorkerFleet&) = delete;
  WorkerFleet& operator=(const WorkerFleet&) = delete;

  // Starts the worker threads. When one of them has something to report `poller` tells with
  // `wakeup_key`, when orders are due with `alarm_key`: then OnWakeup and OnAlarm are needed.
  Status Start(int threads, Poller* poller, std::uint64_t wakeup_key, std::uint64_t alarm_key);
  int threads() const { return static_cast<int>(workers_.size()); }

  // --- connections: which thread has how many --------------------------------------------------
  // The thread for another connection to that node: the one that has fewest of the node's, and
  // among these the fewest in all. To be told when the connection is gone.
  int AddConnection(NodeId node);
  void RemoveConnection(NodeId node, int thread);
  int connections() const { return connections_; }

  // --- orders ----------------------------------------------------------------------------------
  // An order goes out with the first FlushDue from `due` on, or with an earlier one that is due.
  void Send(int thread, Order order, TimePoint due = TimePoint{});
  void Hurry() { due_ = TimePoint{}; }  // what has been sent is due
  void Flush();
  // Sends what is due, or sets the alarm for it. The last step of a turn.
  void FlushDue(TimePoint now);
  // Runs `task`, which may block and must own all that it uses, on a helper thread, and reports
  // what it returns. At most two tasks of one key run at once.
  void RunBlocking(const std::string& key, std::function<Completion()> task);

  // --- reports ---------------------------------------------------------------------------------
  void OnWakeup() { mailbox_->wakeup.Clear(); }
  void OnAlarm() { alarm_at_ = kNever; }
  // Swaps what has been reported into `completions`, which must be empty.
  void Receive(std::vector<Completion>* completions) { mailbox_->completions.Receive(completions); }
  // From now to the next Receive every report wakes; otherwise a successful reset does not.
  void Await() { mailbox_->completions.Await(); }

  // --- the end ---------------------------------------------------------------------------------
  // Before Stop: the connection is lent, and goes on with its holder.
  void LeaveToHolder(SlotId slot) noexcept;
  // Ends the threads within a second; needs no memory. False: a helper thread is stuck, so the
  // process must leave by _exit. A second call returns at once, with the same answer.
  [[nodiscard]] bool Stop() noexcept;

 private:
  // Outlives the fleet while a helper thread is stuck.
  struct Mailbox {
    Wakeup wakeup;
    Channel<Completion> completions{&wakeup};
  };
  const std::shared_ptr<Mailbox> mailbox_ = std::make_shared<Mailbox>();
  HelperPool helpers_;
  std::vector<SlotId> left_to_holders_;  // has room for every connection; outlives the workers
  std::vector<std::unique_ptr<Worker>> workers_;
  std::vector<int> by_thread_;                  // connections
  std::map<NodeId, std::vector<int>> by_node_;  // by thread, of nodes that have any
  int connections_ = 0;
  TimePoint due_ = kNever;       // the earliest of what has been sent and has not gone out
  TimePoint alarm_at_ = kNever;  // set, and has not gone off
  Alarm alarm_;
  bool stopped_ = false;
  bool all_joined_ = true;
};

}  // namespace polarx
