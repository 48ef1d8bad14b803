// Sessions are let in with what they have brought. Who cannot be for want of a descriptor is told,
// and let in once there is one; processes of other operating system users are told nothing.
#include <fcntl.h>

#include <cerrno>

#include "descriptors.h"
#include "pooler_fixture.h"

namespace polarx {
namespace {

class PoolerAcceptTest : public PoolerTest {
 protected:
  std::vector<LogRecord> Logged(LogSeverity severity) {
    std::vector<LogRecord> records;
    LogRecord record;
    while (pooler_->NextLog(&record)) {
      if (record.severity == severity) {
        records.push_back(record);
      }
    }
    return records;
  }
  ::testing::AssertionResult IsHungUpOnWithoutAWord(const PoolerClient& client) {
    char byte;
    ssize_t got = -1;
    const ::testing::AssertionResult ended = TurnUntil([&] {
      got = recv(client.fd(), &byte, 1, MSG_DONTWAIT);
      return got >= 0 || errno != EAGAIN;
    });
    return ended && got > 0 ? ::testing::AssertionFailure() << "it got a byte" : ended;
  }

  ExhaustedDescriptors descriptors_;
};

TEST_F(PoolerAcceptTest, WhoCannotBeLetInIsToldAtOnce) {
  Start();
  PoolerClient attached = Attach();
  std::vector<PoolerClient> knocking;
  for (int i = 0; i < 5; ++i) {
    knocking.push_back(Client());
    ASSERT_TRUE(knocking.back().Send(protocol::Attach{protocol::kVersion, kGeneration}).ok());
  }
  descriptors_.Exhaust();
  for (PoolerClient& client : knocking) {
    std::optional<ClientReply> reply = Reply(&client);
    ASSERT_TRUE(reply && std::holds_alternative<protocol::Failed>(reply->reply));
    const Status& status = std::get<protocol::Failed>(reply->reply).status;
    EXPECT_EQ(status.sqlstate(), "53000");
    EXPECT_EQ(status.message(), "pooler worker has no descriptor left for another session");
    EXPECT_EQ(status.detail(), "Too many open files; the process may have 64.");
    EXPECT_TRUE(TurnUntil([&] { return !client.Receive().ok(); })) << "and hung up on";
  }
  const std::vector<LogRecord> warnings = Logged(LogSeverity::kWarning);
  ASSERT_EQ(warnings.size(), 1u) << "one line, whoever knocks";
  EXPECT_NE(std::string(warnings[0].detail).find("limit of open files"), std::string::npos);
  EXPECT_EQ(View(&attached, protocol::View::kStats, 0, 0), "0") << "who is attached works on";
  descriptors_.Allow();
  PoolerClient late = Attach();
  EXPECT_EQ(View(&late, protocol::View::kStats, 0, 0), "0");
}

TEST_F(PoolerAcceptTest, ProcessesOfOtherUsersAreHungUpOnWithoutAWord) {
  user_ = geteuid() + 1;
  Start();
  const int fds = pooler_->fds_used();
  std::vector<PoolerClient> knocking;
  for (int i = 0; i < 5; ++i) {
    knocking.push_back(Client());
    ASSERT_TRUE(knocking.back().Send(protocol::Attach{protocol::kVersion, kGeneration}).ok());
  }
  for (const PoolerClient& client : knocking) {
    EXPECT_TRUE(IsHungUpOnWithoutAWord(client));
  }
  EXPECT_EQ(pooler_->fds_used(), fds);
  const PoolerClient late = Client();
  descriptors_.Exhaust();
  EXPECT_TRUE(IsHungUpOnWithoutAWord(late)) << "for want of a descriptor as well";
  descriptors_.Allow();
  std::vector<LogRecord> lines = Logged(LogSeverity::kLog);
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(std::string(lines[0].message),
            "process " + std::to_string(getpid()) + " of operating system user " +
                std::to_string(geteuid()) + " may not connect to the pooler");

  const PoolerClient later = Client();
  pooler_->Receive(Now() + seconds(61));
  lines = Logged(LogSeverity::kLog);
  ASSERT_EQ(lines.size(), 1u) << "another line a minute later, with those in between";
  EXPECT_EQ(std::string(lines[0].detail),
            "Connections of other users since the last such message: 6.");
}

TEST_F(PoolerAcceptTest, AConnectThatTheSystemRefusesIsNotTheNodesFault) {
  Start();
  PoolerClient client = Attach();
  descriptors_.Exhaust();
  Ask(&client, 1);
  std::optional<ClientReply> reply = Reply(&client);
  ASSERT_TRUE(reply && std::holds_alternative<protocol::Failed>(reply->reply));
  const Status& status = std::get<protocol::Failed>(reply->reply).status;
  EXPECT_EQ(status.sqlstate(), "53000");
  EXPECT_NE(status.message().find("Too many open files"), std::string::npos) << status.message();
  EXPECT_EQ(View(&client, protocol::View::kNodes, 0, 3), "unknown");
  descriptors_.Allow();
}

TEST_F(PoolerAcceptTest, WhatHasComeWithTheConnectIsAnsweredInTheSameTurn) {
  Start();
  PoolerClient client = Client();
  client.Queue(protocol::Attach{protocol::kVersion, kGeneration});
  ASSERT_TRUE(client.Send(protocol::Show{7, protocol::View::kStats}).ok());
  Turn(seconds(10));
  const auto attached = client.Receive();
  ASSERT_TRUE(attached.ok() && attached.value().has_value());
  EXPECT_TRUE(std::holds_alternative<protocol::Attached>(attached.value()->reply));
  const auto rows = client.Receive();
  ASSERT_TRUE(rows.ok() && rows.value().has_value());
  EXPECT_TRUE(std::holds_alternative<protocol::Rows>(rows.value()->reply));
}

// The mapping is asked for in time, though the session is not attached yet.
TEST_F(PoolerAcceptTest, TheFirstAcquireMayComeWithTheAttach) {
  Start();
  PoolerClient client = Client();
  client.Queue(protocol::Attach{protocol::kVersion, kGeneration});
  Ask(&client, 1);
  const std::optional<ClientReply> attached = Reply(&client);
  EXPECT_TRUE(attached && std::holds_alternative<protocol::Attached>(attached->reply));
  const std::optional<ClientReply> granted = Reply(&client);
  EXPECT_TRUE(granted && std::holds_alternative<protocol::Granted>(granted->reply));
}

TEST_F(PoolerAcceptTest, OnlyWhoHasNotAttachedIsWaitedForAndSentAwayInTime) {
  settings_.pool_maintenance_timeout = kOff;
  Start();
  PoolerClient first = Attach();
  Turn(milliseconds(0));
  EXPECT_EQ(pooler_->NextDeadline(), kNever) << "nobody wakes for an attach that was made";
  const TimePoint before = Now();
  PoolerClient silent = Client();
  PoolerClient second = Attach();
  const TimePoint deadline = pooler_->NextDeadline();
  EXPECT_GE(deadline, before + seconds(10));
  EXPECT_LE(deadline, Now() + seconds(10));
  pooler_->Receive(deadline);
  pooler_->Serve(deadline);
  EXPECT_TRUE(TurnUntil([&] { return !silent.Receive().ok(); }));
  EXPECT_EQ(pooler_->NextDeadline(), kNever);
  EXPECT_EQ(View(&first, protocol::View::kStats, 0, 0), "0");
  EXPECT_EQ(View(&second, protocol::View::kStats, 0, 0), "0");
}

}  // namespace
}  // namespace polarx
