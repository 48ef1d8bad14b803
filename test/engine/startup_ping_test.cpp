// A ping by the start of a connection: the addresses of a name share the time.
#include "engine/startup_ping.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <string>

#include "engine/unique_fd.h"
#include "engine/worker.h"
#include "fake/fake_datanode.h"

namespace polarx {
namespace {

using std::chrono::seconds;

class StartupPingTest : public ::testing::Test {
 protected:
  StartupPingTest() : silent_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    // Accepts and says nothing, at the datanode's port of another address.
    sockaddr_in place{};
    place.sin_family = AF_INET;
    place.sin_port = htons(static_cast<std::uint16_t>(datanode_.port()));
    inet_pton(AF_INET, "127.0.0.8", &place.sin_addr);
    EXPECT_EQ(bind(silent_.get(), reinterpret_cast<sockaddr*>(&place), sizeof(place)), 0);
    EXPECT_EQ(listen(silent_.get(), 8), 0);
  }
  ~StartupPingTest() override { SetLookupForTest(nullptr); }

  Status Ping(const std::string& host, seconds limit = seconds(4)) {
    return StartupPing("dn1", host, std::to_string(datanode_.port()), Now() + limit, limit);
  }

  FakeDatanode datanode_;
  UniqueFd silent_;
};

TEST_F(StartupPingTest, AnAddressNeedsNoName) { EXPECT_TRUE(Ping("127.0.0.1").ok()); }

TEST_F(StartupPingTest, ASilentAddressLeavesTimeForTheNext) {
  SetLookupForTest([](const std::string& host) {
    EXPECT_EQ(host, "datanode.test");
    return LookupResult{"127.0.0.8,127.0.0.1", ""};
  });
  const Status status = Ping("datanode.test");
  EXPECT_TRUE(status.ok()) << status.message();
}

TEST_F(StartupPingTest, WhereAllAreSilentTheLimitIsNamed) {
  SetLookupForTest([](const std::string&) { return LookupResult{"127.0.0.8,127.0.0.8", ""}; });
  const TimePoint begin = Now();
  const Status status = Ping("datanode.test", seconds(2));
  EXPECT_GE(Now() - begin, seconds(2));
  EXPECT_EQ(status.sqlstate(), "08001");
  EXPECT_EQ(status.message(),
            "no answer from datanode \"dn1\": pooler.pooler_dn_set_timeout (2 s) is over");
}

TEST_F(StartupPingTest, ANameWithoutAnAddressIsTold) {
  SetLookupForTest([](const std::string&) { return LookupResult{"", "no such name"}; });
  const Status status = Ping("datanode.test");
  EXPECT_EQ(status.sqlstate(), "08001");
  EXPECT_EQ(status.message(),
            "could not connect to datanode \"dn1\": could not translate host name "
            "\"datanode.test\" to address: no such name");
}

TEST_F(StartupPingTest, ARefusalOfTheRoleIsASignOfLifeAndAStartOfTheServerIsNot) {
  datanode_.SetBehaviour({.startup = FakeBehaviour::Startup::kRefuse,
                          .sqlstate = "28000",
                          .message = "role does not exist"});
  EXPECT_TRUE(Ping("127.0.0.1").ok());
  datanode_.SetBehaviour({.startup = FakeBehaviour::Startup::kRefuse,
                          .sqlstate = "57P03",
                          .message = "the database system is starting up"});
  EXPECT_EQ(Ping("127.0.0.1").sqlstate(), "57P03");
}

}  // namespace
}  // namespace polarx
