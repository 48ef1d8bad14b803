// Helper threads for what only blocks: name lookup, PQcancel, startup pings. They hold copies only,
// so one that is stuck can be left behind.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "engine/lookups.h"

namespace polarx {

// Kinds of tasks. Each has threads of its own, so that no other kind can use them up.
enum class HelperLane : std::uint8_t { kLookup, kCancel, kPing };

// Thread-safe. Threads (pooler-h0 …, all signals blocked) start when needed, up to `max_threads` a
// lane. Of the tasks of one key (a name, a node's host and port) at most `max_per_key` run at once
// and the others wait; keys take turns. So one silent node cannot use up the threads, nor one that
// asks often the time.
class HelperPool {
 public:
  HelperPool(std::size_t max_threads, std::size_t max_per_key);
  static constexpr std::chrono::milliseconds kJoinLimit{300};
  // As Stop: returns within about kJoinLimit also if some are stuck.
  ~HelperPool();

  // Runs `task` on a helper thread. It must own all that it uses, and may throw nothing. Dropped
  // after Stop. Where the system refuses the first thread it waits for the next Run, which tries
  // again: callers have deadlines of their own.
  void Run(HelperLane lane, const std::string& key, std::function<void()> task);

  // Shared by all who have names looked up.
  NameLookups& names() { return names_; }

  // Threads that have been started.
  std::size_t thread_count() const;

  // Ends and joins the threads, drops tasks that have not begun; waits up to kJoinLimit for tasks
  // under way. True if all threads are joined; false if some are stuck: then the process must leave
  // by _exit. A second call returns at once, with the same answer. Needs no memory.
  [[nodiscard]] bool Stop() noexcept;

 private:
  struct Shared;  // outlives the pool while a thread is stuck
  const std::shared_ptr<Shared> shared_;
  NameLookups names_{this};
};

}  // namespace polarx
