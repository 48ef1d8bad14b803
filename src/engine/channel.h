// Hands values from one thread to another and wakes it; the first two of the three shared classes.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <utility>
#include <vector>

#include "engine/mutex.h"
#include "engine/unique_fd.h"

namespace polarx {

// An eventfd. Signal: any thread. Clear: the thread that waits on fd().
class Wakeup {
 public:
  Wakeup();  // fd() is -1 where the system refuses a descriptor: to be checked at start
  int fd() const { return fd_.get(); }
  void Signal();
  void Clear();

 private:
  UniqueFd fd_;
};

// Many senders, one receiver, who takes all there is in one go; values are handled outside the
// lock. What is urgent wakes the receiver; the rest keeps until it looks, unless it waits for that.
template <typename T>
class Channel {
 public:
  explicit Channel(Wakeup* wakeup) : wakeup_(wakeup) {}

  void Send(T value) {
    bool wake;
    {
      MutexLock lock(&mutex_);
      values_.push_back(std::move(value));
      wake = MustWake(true);
    }
    Signal(wake);
  }

  // The same for several at once; `values` is empty afterwards.
  void SendAll(std::vector<T>* values, bool urgent = true) {
    bool wake;
    {
      MutexLock lock(&mutex_);
      if (values_.empty()) {
        values_.swap(*values);
      } else {
        std::move(values->begin(), values->end(), std::back_inserter(values_));
        values->clear();
      }
      wake = MustWake(urgent);
    }
    Signal(wake);
  }

  // Swaps the waiting values into `values`, which must be empty. The receiver's.
  void Receive(std::vector<T>* values) {
    MutexLock lock(&mutex_);
    values_.swap(*values);
    woken_ = awaited_ = false;
  }

  // From now to the next Receive everything wakes, what is there already included. The receiver's.
  void Await() {
    bool wake;
    {
      MutexLock lock(&mutex_);
      awaited_ = true;
      wake = !values_.empty() && MustWake(true);
    }
    Signal(wake);
  }

 private:
  bool MustWake(bool urgent) POLARX_REQUIRES(mutex_) {
    return (urgent || awaited_) && !std::exchange(woken_, true);
  }
  // Outside the lock, which the receiver will want at once.
  void Signal(bool wake) {
    if (wake) {
      wakeup_->Signal();
    }
  }

  Wakeup* const wakeup_;  // constant after construction
  Mutex mutex_;
  std::vector<T> values_ POLARX_GUARDED_BY(mutex_);
  bool woken_ POLARX_GUARDED_BY(mutex_) = false;    // since the last Receive
  bool awaited_ POLARX_GUARDED_BY(mutex_) = false;  // until the next one
};

}  // namespace polarx
