// One worker thread: owns its connections from PQconnectStart to PQfinish, carries out orders,
// tells the main thread what came of them. It never closes a connection that it was not told to
// close.
#pragma once

#include <memory>
#include <span>
#include <thread>
#include <vector>

#include "core/status.h"
#include "engine/channel.h"
#include "engine/helper.h"
#include "engine/orders.h"

namespace polarx {

class Worker {
 public:
  // Starts thread pooler-w<index>. `completions` and `helpers` outlive the worker.
  static Result<std::unique_ptr<Worker>> Start(int index, Channel<Completion>* completions,
                                               HelperPool* helpers);
  // Stops and joins the thread; waits up to half a second until the datanodes have closed their
  // ends. Needs no memory.
  ~Worker();

  // Main thread. Orders go out together, at the next Flush.
  void Send(Order order);
  void Flush();

  // Main thread. Tells the thread to end, and needs no memory for it; orders that have not gone out
  // are dropped. Connections are closed, those in `lent` without a word to the datanode, for their
  // holders go on with them. `lent` must last as long as the worker; it may name other workers'
  // slots too. A second call changes nothing.
  void Stop(std::span<const SlotId> lent) noexcept;

  // What the thread and the helpers' tasks share; it outlives the worker while a task is stuck.
  struct Inbox;

 private:
  Worker() = default;
  std::shared_ptr<Inbox> inbox_;
  std::vector<Order> outbox_;
  std::thread thread_;
};

}  // namespace polarx
