// A host with several addresses, of which some are silent.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include "fake/fake_datanode.h"
#include "engine/worker.h"

namespace polarx {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class AddressesTest : public ::testing::Test {
 protected:
  AddressesTest() {
    Result<std::unique_ptr<Worker>> worker = Worker::Start(0, &completions_, &helpers_);
    EXPECT_TRUE(worker.ok());
    worker_ = std::move(worker.value());
    // Accepts and says nothing, at the datanode's port of other addresses.
    for (const char* address : {"127.0.0.8", "127.0.0.9"}) {
      silent_.emplace_back(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
      sockaddr_in place{};
      place.sin_family = AF_INET;
      place.sin_port = htons(static_cast<std::uint16_t>(datanode_.port()));
      inet_pton(AF_INET, address, &place.sin_addr);
      EXPECT_EQ(bind(silent_.back().get(), reinterpret_cast<sockaddr*>(&place), sizeof(place)), 0);
      EXPECT_EQ(listen(silent_.back().get(), 8), 0);
    }
  }
  ~AddressesTest() override { SetLookupForTest(nullptr); }

  // What becomes of a connect within two seconds.
  Completion Connect(LookupFunction lookup) {
    SetLookupForTest(lookup);
    began_ = Now();
    worker_->Send(ConnectOrder{.slot = 1,
                               .node_name = "dn1",
                               .options = {{"dbname", "d"},
                                           {"gssencmode", "disable"},
                                           {"host", "datanode.test"},
                                           {"port", std::to_string(datanode_.port())},
                                           {"sslmode", "disable"},
                                           {"user", "u"}},
                               .deadline = began_ + seconds(2),
                               .timeout = seconds(2)});
    worker_->Flush();
    std::vector<Completion> arrived;
    pollfd wait{wakeup_.fd(), POLLIN, 0};
    EXPECT_EQ(poll(&wait, 1, 10000), 1) << "no completion came";
    wakeup_.Clear();
    completions_.Receive(&arrived);
    return arrived.empty() ? Completion(ThreadFailed{}) : std::move(arrived.front());
  }

  FakeDatanode datanode_;
  std::vector<UniqueFd> silent_;
  Wakeup wakeup_;
  Channel<Completion> completions_{&wakeup_};
  HelperPool helpers_{4, 2};
  std::unique_ptr<Worker> worker_;
  TimePoint began_{};
};

TEST_F(AddressesTest, ASilentOneLeavesTimeForTheNext) {
  const Completion done = Connect([](const std::string&) {
    return LookupResult{"127.0.0.9,127.0.0.1", ""};
  });
  EXPECT_TRUE(std::holds_alternative<Connected>(done));
  EXPECT_GE(Now() - began_, milliseconds(900)) << "it had its share";
}

TEST_F(AddressesTest, SilentAndRefusingOnesLeaveTimeForTheLast) {
  const Completion done = Connect([](const std::string&) {
    return LookupResult{"127.0.0.7,127.0.0.9,127.0.0.7,127.0.0.8,127.0.0.1", ""};
  });
  EXPECT_TRUE(std::holds_alternative<Connected>(done));
}

TEST_F(AddressesTest, TheFirstThatAnswersIsTaken) {
  const Completion done = Connect([](const std::string&) {
    return LookupResult{"127.0.0.1,127.0.0.9", ""};
  });
  EXPECT_TRUE(std::holds_alternative<Connected>(done));
  EXPECT_LT(Now() - began_, milliseconds(900));
}

TEST_F(AddressesTest, AllSilentEndsAtTheTimeout) {
  const Completion done = Connect([](const std::string&) {
    return LookupResult{"127.0.0.8,127.0.0.9,127.0.0.8", ""};
  });
  ASSERT_TRUE(std::holds_alternative<ConnectFailed>(done));
  EXPECT_NE(
      std::get<ConnectFailed>(done).status.message().find("pooler.pooler_connect_timeout (2 s)"),
      std::string::npos);
  EXPECT_GE(Now() - began_, milliseconds(1950));
}

}  // namespace
}  // namespace polarx
