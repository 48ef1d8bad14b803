// Stat lines come at their interval, and count from the last ones.
#include "engine/stat_printer.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace polarx {
namespace {

using std::chrono::seconds;

// Nothing is opened and nobody asks.
class Nobody : public SlotDriver, public LeaseEvents, public Surroundings {
 public:
  void Connect(Slot*) override { ADD_FAILURE(); }
  void Warm(Slot*) override { ADD_FAILURE(); }
  void Reset(Slot*, ResetWork) override { ADD_FAILURE(); }
  void Measure(Slot*) override { ADD_FAILURE(); }
  void Close(Slot*) override { ADD_FAILURE(); }
  bool LooksAlive(const Slot&) override { return false; }
  void Grant(const Ticket&, std::span<Slot* const>) override { ADD_FAILURE(); }
  void Reject(const Ticket&, const Status&) override { ADD_FAILURE(); }
  void Recall(const Slot&) override { ADD_FAILURE(); }
  void Taken(const Slot&) override { ADD_FAILURE(); }
  void LongLease(const Slot&, Duration) override { ADD_FAILURE(); }
  Status RoomFor(const Node&) override { return Status(); }
  int SessionPid(SessionId) override { return 0; }
  void Log(const std::string&, const std::string&) override {}
};

class StatPrinterTest : public ::testing::Test {
 protected:
  StatPrinterTest() {
    settings_.pool_print_stat_timeout = seconds(60);
    settings_.min_pool_size = 0;
    NodeDefinition node;
    node.id = 1;
    node.name = "dn1";
    MappingDefinition mapping;
    mapping.node = 1;
    mapping.role = 10;
    mapping.remote_user = "u";
    book_.SetCatalog({node}, {mapping}, kStart);
  }
  std::vector<std::string> Lines() {
    std::vector<std::string> lines;
    for (LogRecord record; log_.Pop(&record);) {
      lines.emplace_back(record.message);
    }
    return lines;
  }

  const TimePoint kStart = TimePoint{} + std::chrono::hours(1);
  Settings settings_;
  Nobody nobody_;
  PoolBook book_{&nobody_, &nobody_, &nobody_, settings_, 1};
  LogQueue log_;
};

TEST_F(StatPrinterTest, PrintsALineForTheDatabaseAndOneForEachPoolWhenItIsTime) {
  StatPrinter printer(&log_, "db", settings_, kStart);
  EXPECT_EQ(printer.next_at(), kStart + seconds(60));
  printer.PrintDue(&book_, kStart + seconds(59));
  EXPECT_TRUE(Lines().empty());
  printer.PrintDue(&book_, kStart + seconds(61));
  const std::vector<std::string> lines = Lines();
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0].find("[pooler stat] database=db client_request_conn_total=0"), 0u);
  EXPECT_EQ(lines[1].find("[pooler stat] database=db node=dn1 user=u total=0"), 0u);
  EXPECT_EQ(printer.next_at(), kStart + seconds(121));
}

TEST_F(StatPrinterTest, AnotherIntervalCountsFromItsSetting) {
  StatPrinter printer(&log_, "db", settings_, kStart);
  printer.Apply(settings_, kStart + seconds(30));
  EXPECT_EQ(printer.next_at(), kStart + seconds(60)) << "it is the same";
  settings_.pool_print_stat_timeout = seconds(10);
  printer.Apply(settings_, kStart + seconds(30));
  EXPECT_EQ(printer.next_at(), kStart + seconds(40));
  settings_.pool_print_stat_timeout = kOff;
  printer.Apply(settings_, kStart + seconds(30));
  EXPECT_EQ(printer.next_at(), kNever);
}

TEST_F(StatPrinterTest, TellsSinceWhenTheStatisticsCount) {
  StatPrinter printer(&log_, "db", settings_, kStart);
  EXPECT_EQ(printer.since(), kStart);
  printer.Reset(kStart + seconds(5));
  EXPECT_EQ(printer.since(), kStart + seconds(5));
}

}  // namespace
}  // namespace polarx
