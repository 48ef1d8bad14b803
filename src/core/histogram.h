// Distribution of durations in a fixed array; owned by the main thread of the pooler worker.
#pragma once

#include <array>
#include <cstdint>

#include "core/time.h"

namespace polarx {

// Log-linear buckets: 16 a power of two, from 1 µs to over an hour, so a percentile is off by at
// most 1/16. No allocation.
class Histogram {
 public:
  void Add(Duration value);  // below 0 counts as 0, above the range as its end
  void Clear();
  std::uint64_t count() const { return count_; }
  // Microseconds at `fraction` (0..1] of the values; 0 where there are none.
  double Percentile(double fraction) const;
  // What came since `earlier`, an older copy of this histogram; a bucket that is smaller than there
  // was cleared meanwhile and counts whole.
  Histogram Since(const Histogram& earlier) const;

 private:
  static constexpr int kSubBuckets = 16;
  static constexpr int kBuckets = kSubBuckets * 30;
  std::array<std::uint64_t, kBuckets> buckets_{};
  std::uint64_t count_ = 0;
};

}  // namespace polarx
