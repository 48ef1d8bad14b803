// Blocking calls run here on helper threads, away from the threads that must answer.
#include "engine/helper.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <condition_variable>
#include <deque>
#include <list>
#include <map>
#include <thread>
#include <utility>

#include "engine/mutex.h"
#include "engine/signal_mask.h"

namespace polarx {
namespace {

using Task = std::function<void()>;

// The tasks of one key.
struct Line {
  std::string key;
  std::list<Task> waiting;
  std::size_t running = 0;
  bool ready = false;  // stands in its lane's list of those
};

struct Lane {
  std::map<std::string, Line> lines;  // those with tasks
  std::deque<Line*> ready;            // may run one more; the first is next
  std::size_t running = 0;            // of all lines
};

struct Thread {
  std::thread handle;
  bool ended = false;  // nothing is left to it but to return
};

}  // namespace

// Shared ownership, because a stuck thread may end long after the pool.
struct HelperPool::Shared {
  Shared(std::size_t threads, std::size_t per_key) : max_threads(threads), max_per_key(per_key) {}

  static void Main(const std::shared_ptr<Shared>& shared, Thread* self);
  void ListIfReady(Lane* lane, Line* line) POLARX_REQUIRES(mutex);
  Lane* ReadyLane() POLARX_REQUIRES(mutex);
  std::size_t Runnable() const POLARX_REQUIRES(mutex);
  void WakeOrStart(const std::shared_ptr<Shared>& self) POLARX_REQUIRES(mutex);
  bool AllEnded() const POLARX_REQUIRES(mutex);

  const std::size_t max_threads;
  const std::size_t max_per_key;

  Mutex mutex;
  std::condition_variable task_added_or_stopping;
  std::condition_variable thread_ended;
  std::array<Lane, 3> lanes POLARX_GUARDED_BY(mutex);
  std::size_t busy POLARX_GUARDED_BY(mutex) = 0;  // threads that run a task
  std::list<Thread> threads POLARX_GUARDED_BY(mutex);
  bool stopping POLARX_GUARDED_BY(mutex) = false;
  bool all_joined POLARX_GUARDED_BY(mutex) = true;  // the result of the first Stop
};

void HelperPool::Shared::ListIfReady(Lane* lane, Line* line) {
  if (!line->ready && !line->waiting.empty() && line->running < max_per_key) {
    line->ready = true;
    lane->ready.push_back(line);
  }
}

// Null: there is nothing that may run now.
Lane* HelperPool::Shared::ReadyLane() {
  for (Lane& lane : lanes) {
    if (!lane.ready.empty() && lane.running < max_threads) {
      return &lane;
    }
  }
  return nullptr;
}

// How many more threads would find something to do.
std::size_t HelperPool::Shared::Runnable() const {
  std::size_t count = 0;
  for (const Lane& lane : lanes) {
    count += std::min(lane.ready.size(), max_threads - lane.running);
  }
  return count;
}

bool HelperPool::Shared::AllEnded() const {
  return std::all_of(threads.begin(), threads.end(),
                     [](const Thread& thread) { return thread.ended; });
}

void HelperPool::Shared::Main(const std::shared_ptr<Shared>& shared, Thread* self) {
  MutexLock lock(&shared->mutex);
  while (!shared->stopping) {
    Lane* lane = shared->ReadyLane();
    if (lane == nullptr) {
      lock.Wait(&shared->task_added_or_stopping);
      continue;
    }
    Line* line = lane->ready.front();
    lane->ready.pop_front();
    line->ready = false;
    Task task = std::move(line->waiting.front());
    line->waiting.pop_front();
    ++line->running;
    ++lane->running;
    ++shared->busy;
    shared->ListIfReady(lane, line);
    shared->WakeOrStart(shared);

    lock.Unlock();
    try {
      task();
    } catch (...) {
      // Out of memory: whoever waits for the answer has a deadline.
    }
    task = nullptr;  // what it owns goes without the lock too
    lock.Lock();

    --shared->busy;
    --lane->running;
    --line->running;
    shared->ListIfReady(lane, line);
    if (line->running == 0 && line->waiting.empty()) {
      lane->lines.erase(std::string(line->key));
    }
  }
  self->ended = true;
  shared->thread_ended.notify_all();
}

// Sees to it that somebody runs what may run now.
void HelperPool::Shared::WakeOrStart(const std::shared_ptr<Shared>& self) {
  const std::size_t runnable = Runnable();
  if (runnable == 0) {
    return;
  }
  task_added_or_stopping.notify_one();
  if (threads.size() - busy >= runnable) {
    return;
  }
  try {
    Thread& thread = threads.emplace_back();
    Result<std::thread> started = StartThread("pooler-h" + std::to_string(threads.size() - 1),
                                              [self, &thread] { Main(self, &thread); });
    if (started.ok()) {
      thread.handle = std::move(started.value());
      return;
    }
  } catch (const std::exception&) {
    // Out of memory: as if the system had refused the thread.
  }
  if (!threads.empty() && !threads.back().handle.joinable()) {
    threads.pop_back();
  }
}

HelperPool::HelperPool(std::size_t max_threads, std::size_t max_per_key)
    : shared_(std::make_shared<Shared>(max_threads, max_per_key)) {
  assert(max_threads > 0 && max_per_key > 0);
}

HelperPool::~HelperPool() { (void)Stop(); }

void HelperPool::Run(HelperLane lane, const std::string& key, std::function<void()> task) {
  MutexLock lock(&shared_->mutex);
  if (shared_->stopping) {
    return;
  }
  Lane& its = shared_->lanes.at(static_cast<std::size_t>(lane));
  Line& line = its.lines[key];
  line.key = key;
  line.waiting.push_back(std::move(task));
  shared_->ListIfReady(&its, &line);
  shared_->WakeOrStart(shared_);
}

std::size_t HelperPool::thread_count() const {
  MutexLock lock(&shared_->mutex);
  return shared_->threads.size();
}

// On the way out there may be no memory left, and it needs none.
bool HelperPool::Stop() noexcept {
  std::list<Task> dropped;  // goes last, without the lock
  MutexLock lock(&shared_->mutex);
  if (shared_->stopping) {
    return shared_->all_joined;
  }
  shared_->stopping = true;
  for (Lane& lane : shared_->lanes) {
    for (auto& [key, line] : lane.lines) {
      dropped.splice(dropped.end(), line.waiting);
    }
  }
  shared_->task_added_or_stopping.notify_all();
  const auto deadline = std::chrono::steady_clock::now() + kJoinLimit;
  while (!shared_->AllEnded() && lock.WaitUntil(&shared_->thread_ended, deadline)) {
  }
  const bool all_joined = shared_->all_joined = shared_->AllEnded();
  for (Thread& thread : shared_->threads) {
    if (thread.ended) {
      thread.handle.join();  // it has had the lock for the last time
    } else {
      thread.handle.detach();
    }
  }
  lock.Unlock();
  return all_joined;
}

}  // namespace polarx
