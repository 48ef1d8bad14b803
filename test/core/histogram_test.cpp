// Percentiles of durations: exactness at the low end, the bound of the error, the ends of the
// range.
#include "core/histogram.h"

#include <gtest/gtest.h>

namespace polarx {
namespace {

using std::chrono::hours;
using std::chrono::microseconds;

Histogram Of(std::initializer_list<std::int64_t> values) {
  Histogram histogram;
  for (const std::int64_t value : values) {
    histogram.Add(microseconds(value));
  }
  return histogram;
}

TEST(HistogramTest, NothingCountedGivesZero) {
  EXPECT_EQ(Histogram().count(), 0u);
  EXPECT_EQ(Histogram().Percentile(0.5), 0);
}

TEST(HistogramTest, SmallValuesAreExact) {
  for (std::int64_t value = 0; value < 32; ++value) {
    EXPECT_EQ(Of({value}).Percentile(0.5), static_cast<double>(value));
  }
}

TEST(HistogramTest, EveryValueIsOffByAtMostOneSixteenth) {
  for (std::int64_t value = 1; value < microseconds(hours(1)).count(); value += value / 7 + 1) {
    const double shown = Of({value}).Percentile(1);
    EXPECT_NEAR(shown, static_cast<double>(value), static_cast<double>(value) / 16) << value;
  }
}

TEST(HistogramTest, LargerValuesAreNeverShownSmaller) {
  double last = -1;
  for (std::int64_t value = 0; value < 100000; ++value) {
    const double shown = Of({value}).Percentile(1);
    ASSERT_GE(shown, last) << value;
    last = shown;
  }
}

TEST(HistogramTest, PercentileIsTheValueOfItsRank) {
  Histogram histogram;
  for (int value = 1; value <= 10; ++value) {
    histogram.Add(microseconds(value));
  }
  struct Case {
    double fraction;
    double want;
  };
  for (const Case c : {Case{0.01, 1}, Case{0.1, 1}, Case{0.11, 2}, Case{0.5, 5}, Case{0.7, 7},
                       Case{0.95, 10}, Case{1, 10}}) {
    EXPECT_EQ(histogram.Percentile(c.fraction), c.want) << c.fraction;
  }
}

TEST(HistogramTest, RoundingOfTheFractionDoesNotMoveTheRank) {
  Histogram histogram;
  for (int i = 0; i < 7; ++i) {
    histogram.Add(microseconds(1));
  }
  for (int i = 0; i < 93; ++i) {
    histogram.Add(microseconds(9));
  }
  EXPECT_EQ(histogram.Percentile(0.07), 1);  // 0.07 * 100 is a little above 7
}

TEST(HistogramTest, ValuesBeyondTheRangeCountAtItsEnds) {
  EXPECT_EQ(Of({-5}).Percentile(1), 0);
  Histogram histogram;
  histogram.Add(Duration::max());
  EXPECT_EQ(histogram.count(), 1u);
  EXPECT_GT(histogram.Percentile(1), microseconds(hours(1)).count());
}

TEST(HistogramTest, ClearForgetsEverything) {
  Histogram histogram = Of({3, 4});
  histogram.Clear();
  EXPECT_EQ(histogram.count(), 0u);
  EXPECT_EQ(histogram.Percentile(1), 0);
}

TEST(HistogramTest, SinceHoldsOnlyWhatCameLater) {
  const Histogram earlier = Of({1, 1, 1});
  Histogram now = earlier;
  now.Add(microseconds(20));
  const Histogram since = now.Since(earlier);
  EXPECT_EQ(since.count(), 1u);
  EXPECT_EQ(since.Percentile(0.01), 20);
}

TEST(HistogramTest, SinceAfterAClearHoldsWhatCameAfterIt) {
  const Histogram earlier = Of({1, 1, 1});
  const Histogram since = Of({1, 7}).Since(earlier);
  EXPECT_EQ(since.count(), 2u);
  EXPECT_EQ(since.Percentile(1), 7);
}

}  // namespace
}  // namespace polarx
