// The stat lines, letter by letter: scripts read them.
#include "core/stat_line.h"

#include <gtest/gtest.h>

namespace polarx {
namespace {

RequestCounters Counters() {
  return {.client_request_conn_total = 10,
          .client_request_from_hashtab = 7,
          .client_request_from_thread = 3,
          .acquire_conn_from_hashtab = 8,
          .acquire_conn_from_hashtab_and_set = 2,
          .acquire_conn_from_thread = 4,
          .acquire_conn_time_us = 1234};
}

TEST(StatLineTest, DatabaseLineHasTheEightKeysInOrder) {
  EXPECT_EQ(DatabaseStatLine("app", Counters()),
            "[pooler stat] database=app client_request_conn_total=10 client_request_from_hashtab=7 "
            "client_request_from_thread=3 acquire_conn_from_hashtab=8 "
            "acquire_conn_from_hashtab_and_set=2 acquire_conn_from_thread=4 acquire_conn_time=1234 "
            "each_client_conn_request_cost_time=123.4 us");
}

TEST(StatLineTest, DatabaseLineWithoutRequestsSaysZero) {
  EXPECT_EQ(DatabaseStatLine("a b", {}),
            "[pooler stat] database=\"a b\" client_request_conn_total=0 "
            "client_request_from_hashtab=0 client_request_from_thread=0 "
            "acquire_conn_from_hashtab=0 acquire_conn_from_hashtab_and_set=0 "
            "acquire_conn_from_thread=0 acquire_conn_time=0 "
            "each_client_conn_request_cost_time=0.0 us");
}

TEST(StatLineTest, PoolLineHasItsKeysInOrder) {
  const PoolFigures figures = {.node = "dn1",
                               .user = "o\"neil",
                               .total = 6,
                               .idle = 1,
                               .leased = 2,
                               .parked = 3,
                               .connecting = 4,
                               .waiting = 5,
                               .acquired = 18446744073709551615u,
                               .rejected = 9,
                               .acquire_p50_us = 15,
                               .acquire_p99_us = 1500.25};
  EXPECT_EQ(PoolStatLine("app", figures),
            "[pooler stat] database=app node=dn1 user=\"o\\\"neil\" total=6 idle=1 leased=2 "
            "parked=3 connecting=4 waiting=5 acquired=18446744073709551615 rejected=9 "
            "acquire_p50_us=15.0 acquire_p99_us=1500.2");
}

TEST(StatLineTest, ValuesAreQuotedWhereTheyWouldBeMisread) {
  struct Case {
    std::string value;
    const char* want;
  };
  for (const Case& c : {Case{"dn_1.Z9", "dn_1.Z9"}, Case{"", "\"\""}, Case{"a=b", "\"a=b\""},
                        Case{"a-b", "\"a-b\""}, Case{"a\"b", "\"a\\\"b\""},
                        Case{"a\\b", "\"a\\\\b\""}, Case{"a\nb\rc\td", "\"a\\nb\\rc\\td\""},
                        Case{std::string("\0\x1f\x7f", 3), "\"\\x00\\x1f\\x7f\""},
                        Case{"\xc3\xa9", "\"\xc3\xa9\""}}) {
    EXPECT_EQ(QuoteStatValue(c.value), c.want);
  }
}

TEST(StatLineTest, EveryCounterIsTakenSinceTheLastLine) {
  const RequestCounters since = Counters().Since({.client_request_conn_total = 1,
                                                  .client_request_from_hashtab = 2,
                                                  .client_request_from_thread = 3,
                                                  .acquire_conn_from_hashtab = 4,
                                                  .acquire_conn_from_hashtab_and_set = 1,
                                                  .acquire_conn_from_thread = 1,
                                                  .acquire_conn_time_us = 1000});
  EXPECT_EQ(since.client_request_conn_total, 9u);
  EXPECT_EQ(since.client_request_from_hashtab, 5u);
  EXPECT_EQ(since.client_request_from_thread, 0u);
  EXPECT_EQ(since.acquire_conn_from_hashtab, 4u);
  EXPECT_EQ(since.acquire_conn_from_hashtab_and_set, 1u);
  EXPECT_EQ(since.acquire_conn_from_thread, 3u);
  EXPECT_EQ(since.acquire_conn_time_us, 234u);
}

TEST(StatLineTest, CountersThatWereResetCountWhole) {
  const RequestCounters since = Counters().Since({.client_request_conn_total = 500});
  EXPECT_EQ(since.client_request_conn_total, 10u);
}

TEST(StatLineTest, CostOfARequestIsTheMeanOverAllOfThem) {
  EXPECT_EQ(RequestCounters().EachRequestCostUs(), 0);
  EXPECT_DOUBLE_EQ(Counters().EachRequestCostUs(), 123.4);
}

}  // namespace
}  // namespace polarx
