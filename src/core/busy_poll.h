// Whether a thread looks for what it waits for a moment longer before it sleeps; of that thread.
#pragma once

#include <algorithm>

#include "core/time.h"

namespace polarx {

// Learns from how the last looks ended: where most of them find something every wait begins with
// one, else fewer and fewer do. To sleep and be woken takes longer than most of what is waited for:
// a core that sleeps wakes in 20 to 60 us (bench/run.sh, fd_pass). Where all cores are busy, others
// use the time better.
class BusyPoll {
 public:
  static constexpr Duration kLook = std::chrono::microseconds(60);  // one look, at most
  static constexpr int kMostSkipped = 64;                           // waits between two looks

  // A wait begins. True: with a look, whose end is told to End.
  bool Begin() {
    if (left_ == 0) {
      return true;
    }
    --left_;
    return false;
  }

  void End(bool found) {
    skipped_ = found ? skipped_ / 2 : std::clamp(2 * skipped_, 1, kMostSkipped);
    left_ = skipped_;
  }

 private:
  int skipped_ = 0;  // after the last look
  int left_ = 0;     // of them
};

}  // namespace polarx
