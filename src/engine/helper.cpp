// Blocking calls run here on helper threads, away from the threads that must answer.
#include "engine/helper.h"

#include <algorithm>
#include <cassert>
#include <condition_variable>
#include <deque>
#include <map>
#include <thread>
#include <utility>
#include <vector>

#include "engine/mutex.h"
#include "engine/signal_mask.h"

namespace polarx {
namespace {

struct Task {
  std::string key;
  std::function<void()> run;
};

struct Thread {
  std::thread handle;
  bool ended = false;  // nothing is left to it but to return
};

}  // namespace

// Shared ownership, because a stuck thread may end long after the pool.
struct HelperPool::Shared {
  Shared(std::size_t threads, std::size_t per_key) : max_threads(threads), max_per_key(per_key) {}

  static void Main(const std::shared_ptr<Shared>& shared, std::size_t index);
  std::deque<Task>::iterator FirstRunnable() POLARX_REQUIRES(mutex);
  void StartThreadIfNeeded(const std::shared_ptr<Shared>& self) POLARX_REQUIRES(mutex);
  bool AllEnded() const POLARX_REQUIRES(mutex);

  const std::size_t max_threads;
  const std::size_t max_per_key;

  Mutex mutex;
  std::condition_variable task_added_or_stopping;
  std::condition_variable thread_ended;
  std::deque<Task> waiting POLARX_GUARDED_BY(mutex);
  std::deque<Task> dropped;  // by Stop; here, since even an empty one takes memory
  // Tasks under way by key, none with 0.
  std::map<std::string, std::size_t> running POLARX_GUARDED_BY(mutex);
  std::size_t busy POLARX_GUARDED_BY(mutex) = 0;  // sum of running
  std::deque<Thread> threads POLARX_GUARDED_BY(mutex);
  bool stopping POLARX_GUARDED_BY(mutex) = false;
  bool all_joined POLARX_GUARDED_BY(mutex) = true;  // the result of the first Stop
};

std::deque<Task>::iterator HelperPool::Shared::FirstRunnable() {
  for (auto task = waiting.begin(); task != waiting.end(); ++task) {
    const auto same_key = running.find(task->key);
    if (same_key == running.end() || same_key->second < max_per_key) {
      return task;
    }
  }
  return waiting.end();
}

bool HelperPool::Shared::AllEnded() const {
  return std::all_of(threads.begin(), threads.end(),
                     [](const Thread& thread) { return thread.ended; });
}

void HelperPool::Shared::Main(const std::shared_ptr<Shared>& shared, std::size_t index) {
  MutexLock lock(&shared->mutex);
  while (!shared->stopping) {
    const auto next = shared->FirstRunnable();
    if (next == shared->waiting.end()) {
      lock.Wait(&shared->task_added_or_stopping);
      continue;
    }
    Task task = std::move(*next);
    shared->waiting.erase(next);
    ++shared->running[task.key];
    ++shared->busy;

    lock.Unlock();
    try {
      task.run();
    } catch (...) {
      // Out of memory: whoever waits for the answer has a deadline.
    }
    task.run = nullptr;  // what it owns goes without the lock too
    lock.Lock();

    --shared->busy;
    if (--shared->running[task.key] == 0) {
      shared->running.erase(task.key);
    }
  }
  shared->threads[index].ended = true;
  shared->thread_ended.notify_all();
}

void HelperPool::Shared::StartThreadIfNeeded(const std::shared_ptr<Shared>& self) {
  const std::size_t idle = threads.size() - busy;
  if (threads.size() >= max_threads || idle >= waiting.size()) {
    return;
  }
  const std::size_t index = threads.size();
  Result<std::thread> started =
      StartThread("pooler-h" + std::to_string(index), [self, index] { Main(self, index); });
  if (started.ok()) {
    threads.push_back(Thread{std::move(started.value())});
  }
}

HelperPool::HelperPool(std::size_t max_threads, std::size_t max_per_key)
    : shared_(std::make_shared<Shared>(max_threads, max_per_key)) {
  assert(max_threads > 0 && max_per_key > 0);
}

HelperPool::~HelperPool() { (void)Stop(); }

void HelperPool::Run(const std::string& key, std::function<void()> task) {
  MutexLock lock(&shared_->mutex);
  if (shared_->stopping) {
    return;
  }
  shared_->waiting.push_back(Task{key, std::move(task)});
  shared_->StartThreadIfNeeded(shared_);
  shared_->task_added_or_stopping.notify_one();
}

bool HelperPool::Stop() noexcept {
  MutexLock lock(&shared_->mutex);
  if (shared_->stopping) {
    return shared_->all_joined;
  }
  shared_->stopping = true;
  shared_->dropped.swap(shared_->waiting);
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
  shared_->dropped.clear();  // what tasks own goes without the lock
  return all_joined;
}

}  // namespace polarx
