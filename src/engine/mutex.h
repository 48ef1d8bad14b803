// A mutex and its lock that say to clang what they guard: -Wthread-safety then refuses at compile
// time what touches it without the lock. Other compilers see std::mutex and nothing more.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>

#ifdef __clang__
#define POLARX_THREAD_SAFETY(attribute) __attribute__((attribute))
#else
#define POLARX_THREAD_SAFETY(attribute)
#endif

// Behind a member: used only while `mutex` is locked.
#define POLARX_GUARDED_BY(mutex) POLARX_THREAD_SAFETY(guarded_by(mutex))
// Behind a function: called only while `mutex` is locked.
#define POLARX_REQUIRES(mutex) POLARX_THREAD_SAFETY(requires_capability(mutex))

namespace polarx {

class POLARX_THREAD_SAFETY(capability("mutex")) Mutex {
 private:
  friend class MutexLock;
  std::mutex mutex_;
};

// Locked from its construction to its end, apart from what stands between Unlock and Lock.
class POLARX_THREAD_SAFETY(scoped_lockable) MutexLock {
 public:
  explicit MutexLock(Mutex* mutex) POLARX_THREAD_SAFETY(acquire_capability(mutex))
      : lock_(mutex->mutex_) {}
  ~MutexLock() POLARX_THREAD_SAFETY(release_capability()) = default;
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

  void Lock() POLARX_THREAD_SAFETY(acquire_capability()) { lock_.lock(); }
  void Unlock() POLARX_THREAD_SAFETY(release_capability()) { lock_.unlock(); }

  // Both wake up without a reason too: to be called in a loop over the condition.
  void Wait(std::condition_variable* changed) { changed->wait(lock_); }
  // False: `deadline` is over.
  bool WaitUntil(std::condition_variable* changed, std::chrono::steady_clock::time_point deadline) {
    return changed->wait_until(lock_, deadline) == std::cv_status::no_timeout;
  }

 private:
  std::unique_lock<std::mutex> lock_;
};

}  // namespace polarx
