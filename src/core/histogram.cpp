// Durations are counted in log-linear buckets here; on the main thread of the pooler worker.
#include "core/histogram.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>

namespace polarx {

namespace {

// Values below 16 have a bucket each; from there on every power of two is cut into 16.
constexpr int kSubBits = 4;
constexpr std::uint64_t kSub = 1u << kSubBits;

std::size_t BucketOf(std::uint64_t value) {
  if (value < kSub) {
    return value;
  }
  const int shift = static_cast<int>(std::bit_width(value)) - 1 - kSubBits;
  return static_cast<std::size_t>(shift) * kSub + (value >> shift);
}

// Middle of the whole numbers that fall into the bucket.
double MiddleOf(std::size_t bucket) {
  if (bucket < kSub) {
    return static_cast<double>(bucket);
  }
  const std::size_t shift = bucket / kSub - 1;
  const std::uint64_t width = std::uint64_t{1} << shift;
  const std::uint64_t lowest = (kSub + bucket % kSub) << shift;
  return static_cast<double>(lowest) + static_cast<double>(width - 1) / 2;
}

}  // namespace

void Histogram::Add(Duration value) {
  static_assert(kSubBuckets == kSub);
  const std::uint64_t us = value.count() < 0 ? 0 : static_cast<std::uint64_t>(value.count());
  ++buckets_[std::min<std::size_t>(BucketOf(us), kBuckets - 1)];
  ++count_;
}

void Histogram::Clear() { *this = Histogram(); }

double Histogram::Percentile(double fraction) const {
  if (count_ == 0) {
    return 0;
  }
  // The subtraction keeps a product such as 0.07 * 100 from being rounded up to the next rank.
  const double exact = std::ceil(fraction * static_cast<double>(count_) - 1e-9);
  const double last = static_cast<double>(count_);
  const auto rank = static_cast<std::uint64_t>(std::clamp(exact, 1.0, last));
  std::uint64_t seen = 0;
  for (std::size_t bucket = 0; bucket < buckets_.size(); ++bucket) {
    seen += buckets_[bucket];
    if (seen >= rank) {
      return MiddleOf(bucket);
    }
  }
  return MiddleOf(kBuckets - 1);
}

Histogram Histogram::Since(const Histogram& earlier) const {
  Histogram result;
  for (std::size_t i = 0; i < buckets_.size(); ++i) {
    const bool cleared = buckets_[i] < earlier.buckets_[i];
    result.buckets_[i] = cleared ? buckets_[i] : buckets_[i] - earlier.buckets_[i];
    result.count_ += result.buckets_[i];
  }
  return result;
}

}  // namespace polarx
