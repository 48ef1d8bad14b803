// Blocking calls run here on helper threads, away from the threads that must answer.
#include "polarx_pooler/engine/helper.h"

#include <algorithm>
#include <cassert>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "polarx_pooler/engine/signal_mask.h"

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
  std::deque<Task>::iterator FirstRunnable();
  void StartThreadIfNeeded(const std::shared_ptr<Shared>& self);

  const std::size_t max_threads;
  const std::size_t max_per_key;

  std::mutex mutex;  // guards all that follows
  std::condition_variable task_added_or_stopping;
  std::condition_variable thread_ended;
  std::deque<Task> waiting;
  std::map<std::string, std::size_t> running;  // tasks under way by key, none with 0
  std::size_t busy = 0;                        // sum of running
  std::deque<Thread> threads;
  bool stopping = false;
  bool all_joined = true;  // the result of the first Stop
};

std::deque<Task>::iterator HelperPool::Shared::FirstRunnable() {
  return std::find_if(waiting.begin(), waiting.end(), [this](const Task& task) {
    const auto same_key = running.find(task.key);
    return same_key == running.end() || same_key->second < max_per_key;
  });
}

void HelperPool::Shared::Main(const std::shared_ptr<Shared>& shared, std::size_t index) {
  std::unique_lock lock(shared->mutex);
  while (!shared->stopping) {
    const auto next = shared->FirstRunnable();
    if (next == shared->waiting.end()) {
      shared->task_added_or_stopping.wait(lock);
      continue;
    }
    Task task = std::move(*next);
    shared->waiting.erase(next);
    ++shared->running[task.key];
    ++shared->busy;

    lock.unlock();
    try {
      task.run();
    } catch (...) {
      // Out of memory: whoever waits for the answer has a deadline.
    }
    task.run = nullptr;  // what it owns goes without the lock too
    lock.lock();

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
  std::lock_guard lock(shared_->mutex);
  if (shared_->stopping) {
    return;
  }
  shared_->waiting.push_back(Task{key, std::move(task)});
  shared_->StartThreadIfNeeded(shared_);
  shared_->task_added_or_stopping.notify_one();
}

bool HelperPool::Stop() {
  std::deque<Task> dropped;  // goes last, without the lock
  std::vector<std::thread> ended;
  std::unique_lock lock(shared_->mutex);
  if (shared_->stopping) {
    return shared_->all_joined;
  }
  shared_->stopping = true;
  dropped.swap(shared_->waiting);
  shared_->task_added_or_stopping.notify_all();
  shared_->all_joined = shared_->thread_ended.wait_for(lock, kJoinLimit, [this] {
    return std::all_of(shared_->threads.begin(), shared_->threads.end(),
                       [](const Thread& thread) { return thread.ended; });
  });
  for (Thread& thread : shared_->threads) {
    if (thread.ended) {
      ended.push_back(std::move(thread.handle));
    } else {
      thread.handle.detach();
    }
  }
  const bool all_joined = shared_->all_joined;
  lock.unlock();
  for (std::thread& thread : ended) {
    thread.join();
  }
  return all_joined;
}

}  // namespace polarx
