// Helper threads for what only blocks: name lookup and PQcancel. They hold copies only, so one that
// is stuck can be left behind.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>

namespace polarx {

// Thread-safe. Threads (pooler-h0 …, all signals blocked) start when needed, up to `max_threads`.
// At most `max_per_key` tasks of one key (a node's host and port) run at once and the others wait,
// so that one silent node cannot use up the threads.
class HelperPool {
 public:
  HelperPool(std::size_t max_threads, std::size_t max_per_key);
  static constexpr std::chrono::milliseconds kJoinLimit{300};
  // As Stop: returns within about kJoinLimit also if some are stuck.
  ~HelperPool();

  // Runs `task` on a helper thread. It must own all that it uses, and may throw nothing. Dropped
  // after Stop. Where the system refuses the first thread it waits for the next Run, which tries
  // again: callers have deadlines of their own.
  void Run(const std::string& key, std::function<void()> task);

  // Ends and joins the threads, drops tasks that have not begun; waits up to kJoinLimit for tasks
  // under way. True if all threads are joined; false if some are stuck: then the process must leave
  // by _exit. A second call returns at once, with the same answer. Needs no memory.
  [[nodiscard]] bool Stop() noexcept;

 private:
  struct Shared;  // outlives the pool while a thread is stuck
  std::shared_ptr<Shared> shared_;
};

}  // namespace polarx
