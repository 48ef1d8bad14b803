// What a session must not do ends that session and no other; what it tells with a release is looked
// up before the connection is lent again. With the whole engine in one process.
#include <algorithm>

#include "pooler_fixture.h"

namespace polarx {
namespace {

class PoolerRulesTest : public PoolerTest {
 protected:
  // The session is hung up on; another one goes on.
  void ExpectEnd(PoolerClient* guilty, PoolerClient* bystander) {
    EXPECT_TRUE(TurnUntil([&] { return !guilty->Receive().ok(); }));
    EXPECT_NE(Log().find("broke the protocol"), std::string::npos);
    Release(bystander, Acquire(bystander, 77));
  }
  std::string Log() {
    std::string text;
    LogRecord record;
    while (pooler_->NextLog(&record)) {
      text += std::string(record.message) + ": " + record.detail + "\n";
    }
    return text;
  }
};

TEST_F(PoolerRulesTest, AnAcquireNamesEachNodeOnce) {
  Start();
  PoolerClient bystander = Attach();
  PoolerClient nothing = Attach();
  ASSERT_TRUE(nothing.Send(protocol::Acquire{1, 0, false, {}}).ok());
  ExpectEnd(&nothing, &bystander);
  PoolerClient twice = Attach();
  ASSERT_TRUE(
      twice.Send(protocol::Acquire{1, 0, false, {{kNode, kRole}, {kNode, kRole + 1}}}).ok());
  ExpectEnd(&twice, &bystander);
}

TEST_F(PoolerRulesTest, OnlyOneAcquireOfASessionWaits) {
  settings_.max_pool_size = 1;
  Start();
  PoolerClient holder = Attach(), bystander = Attach(), eager = Attach();
  const Lease lease = Acquire(&holder);
  Ask(&eager, 1, 10000);
  Ask(&eager, 2, 10000);
  EXPECT_TRUE(TurnUntil([&] { return !eager.Receive().ok(); }));
  Release(&holder, lease);
  Release(&bystander, Acquire(&bystander));
}

TEST_F(PoolerRulesTest, WhoAsksAndDoesNotReadIsSentAway) {
  Start();
  PoolerClient bystander = Attach(), silent = Attach();
  bool sent = true;
  for (int request = 0; sent && request < 100000; ++request) {
    sent = silent.Send(protocol::Show{1, protocol::View::kStats}).ok();
    if (request % 16 == 0) {
      Turn(milliseconds(0));
    }
  }
  EXPECT_FALSE(sent) << "it could go on for ever";
  EXPECT_NE(Log().find("does not read the answers"), std::string::npos);
  Release(&bystander, Acquire(&bystander));
}

TEST_F(PoolerRulesTest, AProcessThatMayNotAttachIsToldSo) {
  Start();
  PoolerClient client = Client();
  ASSERT_TRUE(client.Send(protocol::Attach{protocol::kVersion, kGeneration}).ok());
  AttachQuestion question;
  const TimePoint deadline = Now() + seconds(10);
  do {
    ASSERT_LT(Now(), deadline);
    pooler_->Receive(Now());
  } while (!pooler_->NextAttach(&question));
  EXPECT_EQ(question.pid, getpid());
  pooler_->AnswerAttach(question.session, Status(sqlstate::kCannotConnectNow, "no backend"), "");
  std::optional<ClientReply> reply = Reply(&client);
  ASSERT_TRUE(reply && std::holds_alternative<protocol::Failed>(reply->reply));
  EXPECT_EQ(std::get<protocol::Failed>(reply->reply).status.message(), "no backend");
  EXPECT_TRUE(TurnUntil([&] { return !client.Receive().ok(); }));
  EXPECT_NE(Log().find("may not attach"), std::string::npos);
}

TEST_F(PoolerRulesTest, WhatChangedOnALeaseIsAskedOfTheDatanode) {
  Start();
  PoolerClient client = Attach();
  const Lease lease = Acquire(&client);
  DetachConnection(lease.conn);
  PQfinish(lease.conn);
  datanode_.SetBehaviour(
      {.rows = {{"SELECT pg_catalog.current_setting('TimeZone')", "Asia/Tokyo"}}});
  const protocol::Parameters changed = {{"TimeZone", "UTC"}, {"no such parameter", "x"}};
  ASSERT_TRUE(
      client.Send(protocol::Release{{{lease.id, protocol::ReleaseKind::kClean, changed}}}).ok());
  Ask(&client, 2);
  std::optional<ClientReply> reply = Reply(&client);
  ASSERT_TRUE(reply && std::holds_alternative<protocol::Granted>(reply->reply));
  const protocol::Parameters& told = reply->parameters.at(0)->values;
  EXPECT_EQ(std::count(told.begin(), told.end(),
                       std::pair<std::string, std::string>("TimeZone", "Asia/Tokyo")),
            1);
  EXPECT_EQ(
      datanode_.counts().statements,
      (std::vector<std::string>{"DISCARD ALL", "SELECT pg_catalog.current_setting('TimeZone')"}));
}

}  // namespace
}  // namespace polarx
