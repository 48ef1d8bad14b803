// Time-outs of transactions at datanodes of old and new versions, against a scripted datanode.
#include "engine/transaction_timeouts.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <string>

#include "fake/fake_datanode.h"
#include "engine/worker.h"

namespace polarx {
namespace {

using std::chrono::seconds;

class TransactionTimeoutsTest : public ::testing::Test {
 protected:
  TransactionTimeoutsTest() {
    Result<std::unique_ptr<Worker>> worker = Worker::Start(0, &completions_, &helpers_);
    EXPECT_TRUE(worker.ok());
    worker_ = std::move(worker.value());
  }
  // The datanode is of that version from now on.
  void SetVersion(const std::string& version) {
    FakeBehaviour behaviour;
    behaviour.parameters = {{"server_version", version}, {"client_encoding", "UTF8"}};
    datanode_.SetBehaviour(behaviour);
  }
  // Returns how many connections the datanode was asked for; at the end one is open, or none.
  int Connect(SlotId slot, bool opens = true) {
    const int before = datanode_.counts().opened;
    worker_->Send(ConnectOrder{.slot = slot,
                               .node_name = "dn1",
                               .options = {{"dbname", "d"},
                                           {"gssencmode", "disable"},
                                           {"host", "127.0.0.1"},
                                           {"options", "-c DateStyle=ISO"},
                                           {"port", std::to_string(datanode_.port())},
                                           {"sslmode", "disable"},
                                           {"user", "u"}},
                               .deadline = Now() + seconds(10),
                               .timeout = seconds(10)});
    worker_->Flush();
    std::vector<Completion> came;
    while (came.empty()) {
      completions_.Await();
      pollfd wait{wakeup_.fd(), POLLIN, 0};
      if (poll(&wait, 1, 10000) != 1) {
        ADD_FAILURE() << "no completion came";
        return -1;
      }
      wakeup_.Clear();
      completions_.Receive(&came);
    }
    EXPECT_EQ(std::holds_alternative<Connected>(came.front()), opens);
    return datanode_.counts().opened - before;
  }
  // What the newest connection asked for.
  std::string Settings() {
    for (const auto& [name, value] : datanode_.counts().last_startup) {
      if (name == "options") {
        return value;
      }
    }
    return "none";
  }

  FakeDatanode datanode_;
  Wakeup wakeup_;
  Channel<Completion> completions_{&wakeup_};
  HelperPool helpers_{4, 2};
  std::unique_ptr<Worker> worker_;
};

constexpr const char* kPlain = "-c DateStyle=ISO";
constexpr const char* kOff = "-c DateStyle=ISO -c transaction_timeout=0";

TEST_F(TransactionTimeoutsTest, AnOldServerIsNeverToldOfThem) {
  SetVersion("16.9");
  EXPECT_EQ(Connect(1), 1);
  EXPECT_EQ(Settings(), kPlain);
  EXPECT_EQ(Connect(2), 1);
  EXPECT_EQ(Settings(), kPlain);
}

TEST_F(TransactionTimeoutsTest, TheFirstConnectionToANewServerIsOpenedAgain) {
  SetVersion("17.0");
  EXPECT_EQ(Connect(1), 2);
  EXPECT_EQ(Settings(), kOff);
  EXPECT_EQ(Connect(2), 1);
  EXPECT_EQ(Settings(), kOff);
  ASSERT_TRUE(datanode_.WaitUntil([](const auto& counts) { return counts.open == 2; }));
}

TEST_F(TransactionTimeoutsTest, AServerThatIsUpgradedIsFoundOut) {
  SetVersion("16.9");
  EXPECT_EQ(Connect(1), 1);
  SetVersion("18.1");
  EXPECT_EQ(Connect(2), 2);
  EXPECT_EQ(Settings(), kOff);
}

TEST_F(TransactionTimeoutsTest, AServerThatRefusesThemIsTriedWithoutAndNotAskedAgain) {
  SetVersion("17.0");
  EXPECT_EQ(Connect(1), 2);
  datanode_.SetBehaviour(
      {.startup = FakeBehaviour::Startup::kRefuse,
       .sqlstate = "42704",
       .message = "unrecognized configuration parameter \"transaction_timeout\""});
  EXPECT_EQ(Connect(2, false), 2) << "with, then without";
  EXPECT_EQ(Settings(), kPlain);
  SetVersion("17.0");  // as behind a proxy
  EXPECT_EQ(Connect(3), 1);
  EXPECT_EQ(Settings(), kPlain);
}

TEST_F(TransactionTimeoutsTest, AnotherRefusalIsNotTheirs) {
  SetVersion("17.0");
  EXPECT_EQ(Connect(1), 2);
  datanode_.SetBehaviour({.startup = FakeBehaviour::Startup::kRefuse});
  EXPECT_EQ(Connect(2, false), 1);
  SetVersion("17.0");
  EXPECT_EQ(Connect(3), 1);
  EXPECT_EQ(Settings(), kOff);
}

}  // namespace
}  // namespace polarx
