// What the pooler runs on a datanode connection of its own accord: the warm-up of a new one, the
// measure of a session's memory; with the whole engine in one process.
#include "engine/memory_check.h"

#include <algorithm>

#include "pooler_fixture.h"

namespace polarx {
namespace {

const std::string kQuestion = MeasureStatement(MemorySource::kUnknown);
const std::string kCall = MeasureStatement(MemorySource::kFunction);
const std::string kSum = MeasureStatement(MemorySource::kView);

class PoolerMemoryTest : public PoolerTest {
 protected:
  std::string Memory(PoolerClient* client) {
    return View(client, protocol::View::kConnections, 0, kMemory);
  }
  std::string Idle(PoolerClient* client) { return View(client, protocol::View::kPools, 0, kIdle); }
  void StartMeasuring() {
    settings_.pool_session_context_check_gap = seconds(1);
    Start();
  }
  // Beside the one that is leased.
  void OpenMore(int count, const std::string& warmup_query) {
    settings_.warmup_query = warmup_query;
    settings_.min_pool_size = 1 + count;
    pooler_->Apply(settings_, Now());
  }
  // How many lines of the log have that in them.
  int Logged(const std::string& text) {
    int lines = 0;
    LogRecord record;
    while (pooler_->NextLog(&record)) {
      lines += std::string(record.message).find(text) != text.npos ||
               std::string(record.detail).find(text) != text.npos;
    }
    return lines;
  }
  int Ran(const std::string& statement) {
    const std::vector<std::string> all = datanode_.counts().statements;
    return static_cast<int>(std::count(all.begin(), all.end(), statement));
  }
  static constexpr std::size_t kIdle = 5, kMemory = 10, kClosed = 21;
};

TEST_F(PoolerMemoryTest, OnlyTheFunctionAndTheViewAreAskedForOnceTheyAreFound) {
  EXPECT_TRUE(AsksForSource(MemorySource::kUnknown));
  EXPECT_TRUE(AsksForSource(MemorySource::kNone));
  EXPECT_FALSE(AsksForSource(MemorySource::kFunction));
  EXPECT_FALSE(AsksForSource(MemorySource::kView));
  EXPECT_EQ(MemorySourceOf("function"), MemorySource::kFunction);
  EXPECT_EQ(MemorySourceOf("view"), MemorySource::kView);
  EXPECT_EQ(MemorySourceOf("none"), MemorySource::kNone);
  EXPECT_EQ(MemorySourceOf(""), MemorySource::kNone);
  EXPECT_EQ(MeasureStatement(MemorySource::kNone), kQuestion);
}

TEST_F(PoolerMemoryTest, AConnectionThatNobodyWaitsForIsWarmedUp) {
  Start();
  PoolerClient client = Attach();
  const Lease lease = Acquire(&client);
  OpenMore(1, "SELECT warm");
  // New ones are idle before it as well as after it.
  ASSERT_TRUE(TurnUntil([&] { return Ran("SELECT warm") > 0 && Idle(&client) == "1"; }));
  EXPECT_EQ(datanode_.counts().statements, std::vector<std::string>{"SELECT warm"});
  Release(&client, lease);
}

TEST_F(PoolerMemoryTest, AWarmUpThatFailsIsLoggedOnceAndTheConnectionStays) {
  const std::string fails = "FAIL 42P01 no such relation";
  Start();
  PoolerClient client = Attach();
  const Lease lease = Acquire(&client);
  OpenMore(2, fails);
  ASSERT_TRUE(TurnUntil([&] { return Ran(fails) == 2 && Idle(&client) == "2"; }));
  EXPECT_EQ(datanode_.counts().opened, 3);
  EXPECT_EQ(Ran(fails), 2);
  EXPECT_EQ(Logged("no such relation"), 1);
  Release(&client, lease);
}

TEST_F(PoolerMemoryTest, ASessionIsMeasuredByWhatTheDatanodeOffers) {
  for (const auto& offer : {std::pair{"function", kCall}, {"view", kSum}}) {
    const std::string answer = offer.first, statement = offer.second;
    datanode_.SetBehaviour({.rows = {{kQuestion, answer}, {statement, "5000"}}});
    StartMeasuring();
    PoolerClient client = Attach();
    const int asked = Ran(kQuestion);
    Release(&client, Acquire(&client));
    EXPECT_TRUE(TurnUntil([&] { return Memory(&client) == "5000"; })) << answer;
    EXPECT_TRUE(TurnUntil([&] { return Ran(statement) >= 2; })) << "again after the gap";
    EXPECT_EQ(Ran(kQuestion), asked + 1) << "once for the pool";
    pooler_.reset();
    std::filesystem::remove(Path());
  }
}

TEST_F(PoolerMemoryTest, ASessionIsMeasuredAtItsReleaseWhenItIsDue) {
  datanode_.SetBehaviour({.rows = {{kQuestion, "view"}, {kSum, "5000"}}});
  StartMeasuring();
  PoolerClient client = Attach();
  const Lease lease = Acquire(&client);
  const TimePoint due = Now() + seconds(1);
  ASSERT_TRUE(TurnUntil([&] { return Now() > due; }));
  EXPECT_EQ(Ran(kQuestion), 0) << "it is its holder's";
  Release(&client, lease);
  ASSERT_TRUE(TurnUntil([&] { return Memory(&client) == "5000"; }));
  const std::vector<std::string> first = {"DISCARD ALL", kQuestion, kSum};
  const std::vector<std::string> all = datanode_.counts().statements;
  EXPECT_EQ(std::vector<std::string>(all.begin(), all.begin() + 3), first);
}

TEST_F(PoolerMemoryTest, ASessionThatUsesTooMuchIsClosed) {
  datanode_.SetBehaviour({.rows = {{kQuestion, "view"}, {kSum, "10485761"}}});
  StartMeasuring();
  PoolerClient client = Attach();
  Release(&client, Acquire(&client));
  EXPECT_TRUE(TurnUntil([&] { return View(&client, protocol::View::kPools, 0, kClosed) == "1"; }));
  EXPECT_TRUE(TurnUntil([&] { return datanode_.counts().open == 0; }));
  EXPECT_EQ(Logged("uses 10 MB"), 1);
}

TEST_F(PoolerMemoryTest, WhereNothingIsOfferedTheConnectionStaysAndHasNoFigure) {
  datanode_.SetBehaviour({.rows = {{kQuestion, "none"}}});
  StartMeasuring();
  PoolerClient client = Attach();
  Release(&client, Acquire(&client));
  ASSERT_TRUE(TurnUntil([&] { return Ran(kQuestion) >= 2; })) << "it may be offered by now";
  EXPECT_EQ(Memory(&client), "");
  EXPECT_EQ(datanode_.counts().opened, 1);
  EXPECT_EQ(datanode_.counts().open, 1);
  EXPECT_EQ(Logged("cannot be measured"), 1);
}

TEST_F(PoolerMemoryTest, ASourceThatFailsIsLookedForAnew) {
  datanode_.SetBehaviour({.rows = {{kQuestion, "view"}}});  // the sum itself has no row
  StartMeasuring();
  PoolerClient client = Attach();
  Release(&client, Acquire(&client));
  ASSERT_TRUE(TurnUntil([&] { return Ran(kSum) >= 2; }));
  EXPECT_GE(Ran(kQuestion), 2);
  EXPECT_EQ(Memory(&client), "");
  EXPECT_EQ(datanode_.counts().open, 1);
}

}  // namespace
}  // namespace polarx
