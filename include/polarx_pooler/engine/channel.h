// Hands values from one thread to another and wakes it; the first two of the three shared classes.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <utility>
#include <vector>

#include "polarx_pooler/engine/mutex.h"
#include "polarx_pooler/engine/unique_fd.h"

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

// Many senders, one receiver. The receiver is woken when the channel stops being empty, and takes
// all there is in one go; values are handled outside the lock.
template <typename T>
class Channel {
 public:
  explicit Channel(Wakeup* wakeup) : wakeup_(wakeup) {}

  void Send(T value) {
    bool was_empty;
    {
      MutexLock lock(&mutex_);
      was_empty = values_.empty();
      values_.push_back(std::move(value));
    }
    if (was_empty) {
      wakeup_->Signal();
    }
  }

  // The same for several at once; `values` is empty afterwards.
  void SendAll(std::vector<T>* values) {
    bool was_empty;
    {
      MutexLock lock(&mutex_);
      was_empty = values_.empty();
      if (was_empty) {
        values_.swap(*values);
      } else {
        std::move(values->begin(), values->end(), std::back_inserter(values_));
      }
    }
    values->clear();
    if (was_empty) {
      wakeup_->Signal();
    }
  }

  // Swaps the waiting values into `values`, which must be empty.
  void Receive(std::vector<T>* values) {
    MutexLock lock(&mutex_);
    values_.swap(*values);
  }

 private:
  Wakeup* const wakeup_;  // constant after construction
  Mutex mutex_;
  std::vector<T> values_ POLARX_GUARDED_BY(mutex_);
};

}  // namespace polarx
