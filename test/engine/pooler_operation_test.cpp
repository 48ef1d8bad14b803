// What administrators ask of the pooler, with the whole engine in one process.
#include "pooler_fixture.h"

namespace polarx {
namespace {

TEST_F(PoolerTest, PingsOnAnIdleSlotOrByAStartupOfItsOwn) {
  Start();
  PoolerClient client = Attach();
  for (int round = 0; round < 2; ++round) {
    ASSERT_TRUE(client.Send(protocol::Ping{7, kRole, {kNode}}).ok());
    std::optional<ClientReply> reply = Reply(&client);
    ASSERT_TRUE(reply);
    const protocol::Row& row = std::get<protocol::Rows>(reply->reply).rows.at(0);
    EXPECT_EQ(row[0], "dn1");
    EXPECT_EQ(row[1], "t");
    if (round == 0) {
      Release(&client, Acquire(&client));
      ASSERT_TRUE(TurnUntil([&] { return View(&client, protocol::View::kPools, 0, 5) == "1"; }));
    }
  }
  EXPECT_EQ(datanode_.counts().opened, 2) << "a startup of its own, then the idle slot";
}

TEST_F(PoolerTest, APingThatNobodyAnswersEndsAtTheTimeout) {
  settings_.pooler_dn_set_timeout = seconds(1);
  Start();
  datanode_.SetBehaviour({.startup = FakeBehaviour::Startup::kSilent});
  PoolerClient client = Attach();
  const TimePoint begin = Now();
  ASSERT_TRUE(client.Send(protocol::Ping{1, kRole, {kNode}}).ok());
  std::optional<ClientReply> reply = Reply(&client);
  ASSERT_TRUE(reply && std::holds_alternative<protocol::Rows>(reply->reply));
  const protocol::Row& row = std::get<protocol::Rows>(reply->reply).rows.at(0);
  EXPECT_EQ(row[1], "f");
  EXPECT_NE(row[3]->find("pooler_dn_set_timeout (1 s)"), std::string::npos) << *row[3];
  EXPECT_GE(Now() - begin, seconds(1));
  EXPECT_LT(Now() - begin, seconds(3));
}

TEST_F(PoolerTest, ASlotThatKeepsSilentIsNotYetANodeThatIsDown) {
  settings_.pooler_dn_set_timeout = seconds(2);
  Start();
  PoolerClient client = Attach();
  Release(&client, Acquire(&client));
  ASSERT_TRUE(TurnUntil([&] { return View(&client, protocol::View::kPools, 0, 5) == "1"; }));
  datanode_.SetBehaviour({.answer = FakeBehaviour::Answer::kSilent});
  ASSERT_TRUE(client.Send(protocol::Ping{1, kRole, {kNode}}).ok());
  std::optional<ClientReply> reply = Reply(&client);
  ASSERT_TRUE(reply && std::holds_alternative<protocol::Rows>(reply->reply));
  EXPECT_EQ(std::get<protocol::Rows>(reply->reply).rows.at(0)[1], "t");
  EXPECT_EQ(View(&client, protocol::View::kNodes, 0, 3), "up");
  EXPECT_TRUE(TurnUntil([&] { return datanode_.counts().open == 0; })) << "but the slot is closed";
}

TEST_F(PoolerTest, ANodeThatKeepsSilentIsDownAtTheTimeout) {
  settings_.pooler_dn_set_timeout = seconds(1);
  Start();
  PoolerClient client = Attach();
  Release(&client, Acquire(&client));
  ASSERT_TRUE(TurnUntil([&] { return View(&client, protocol::View::kPools, 0, 5) == "1"; }));
  datanode_.SetBehaviour(
      {.startup = FakeBehaviour::Startup::kSilent, .answer = FakeBehaviour::Answer::kSilent});
  const TimePoint begin = Now();
  ASSERT_TRUE(client.Send(protocol::Ping{1, kRole, {kNode}}).ok());
  std::optional<ClientReply> reply = Reply(&client);
  ASSERT_TRUE(reply && std::holds_alternative<protocol::Rows>(reply->reply));
  EXPECT_EQ(std::get<protocol::Rows>(reply->reply).rows.at(0)[1], "f");
  EXPECT_GE(Now() - begin, seconds(1));
  EXPECT_LT(Now() - begin, seconds(3));
  EXPECT_EQ(View(&client, protocol::View::kNodes, 0, 3), "down");
}

TEST_F(PoolerTest, AnyAnswerToAPingIsASignOfLife) {
  Start();
  PoolerClient client = Attach();
  const auto ping = [&](FakeBehaviour behaviour) {
    datanode_.SetBehaviour(std::move(behaviour));
    EXPECT_TRUE(client.Send(protocol::Ping{1, kRole, {kNode}}).ok());
    std::optional<ClientReply> reply = Reply(&client);
    EXPECT_TRUE(reply && std::holds_alternative<protocol::Rows>(reply->reply));
    return std::get<protocol::Rows>(reply->reply).rows.at(0)[1].value_or("");
  };
  EXPECT_EQ(ping({.startup = FakeBehaviour::Startup::kAskPassword}), "t");
  EXPECT_EQ(ping({.startup = FakeBehaviour::Startup::kRefuse,
                  .sqlstate = "28000",
                  .message = "role does not exist"}),
            "t");
  EXPECT_EQ(ping({.startup = FakeBehaviour::Startup::kRefuse}), "f") << "57P03";
  EXPECT_EQ(ping({.startup = FakeBehaviour::Startup::kHangUp}), "f");
}

TEST_F(PoolerTest, CleanClosesAndCounts) {
  Start();
  PoolerClient client = Attach();
  Release(&client, Acquire(&client));
  ASSERT_TRUE(TurnUntil([&] { return View(&client, protocol::View::kPools, 0, 5) == "1"; }));
  ASSERT_TRUE(client.Send(protocol::Clean{3, kNode, "u"}).ok());
  std::optional<ClientReply> reply = Reply(&client);
  ASSERT_TRUE(reply);
  EXPECT_EQ(std::get<protocol::Done>(reply->reply).value, 1);
  EXPECT_TRUE(TurnUntil([&] { return datanode_.counts().open == 0; }));
}

TEST_F(PoolerTest, CleanRecallsALeaseBeforeItAnswersAConfirm) {
  Start();
  PoolerClient holder = Attach();
  const Lease lease = Acquire(&holder);
  PoolerClient admin = Attach();
  ASSERT_TRUE(admin.Send(protocol::Clean{3, kNode, ""}).ok());
  ASSERT_TRUE(Reply(&admin));
  ASSERT_TRUE(holder.Send(protocol::Confirm{4}).ok());
  std::optional<ClientReply> reply = Reply(&holder);
  ASSERT_TRUE(reply && std::holds_alternative<protocol::Recall>(reply->reply));
  EXPECT_EQ(std::get<protocol::Recall>(reply->reply).leases, std::vector<std::uint64_t>{lease.id});
  reply = Reply(&holder);
  ASSERT_TRUE(reply && std::holds_alternative<protocol::Done>(reply->reply));
  Release(&holder, lease);
  EXPECT_TRUE(TurnUntil([&] { return datanode_.counts().open == 0; }));
}

TEST_F(PoolerTest, APauseHoldsRequestsUntilResume) {
  Start();
  PoolerClient admin = Attach();
  ASSERT_TRUE(admin.Send(protocol::Pause{1, kNode, true}).ok());
  ASSERT_TRUE(Reply(&admin));
  EXPECT_EQ(View(&admin, protocol::View::kNodes, 0, 4), "t");
  PoolerClient client = Attach();
  Ask(&client, 7);
  EXPECT_TRUE(TurnUntil([&] { return View(&admin, protocol::View::kPools, 0, 10) == "1"; }));
  EXPECT_EQ(datanode_.counts().opened, 0);
  ASSERT_TRUE(admin.Send(protocol::Pause{2, 0, false}).ok());
  ASSERT_TRUE(Reply(&admin));
  std::optional<ClientReply> reply = Reply(&client);
  EXPECT_TRUE(reply && std::holds_alternative<protocol::Granted>(reply->reply));
}

TEST_F(PoolerTest, ResetStatsAndCheckAnswer) {
  Start();
  PoolerClient client = Attach();
  Release(&client, Acquire(&client));
  ASSERT_TRUE(client.Send(protocol::ResetStats{1}).ok());
  ASSERT_TRUE(Reply(&client));
  EXPECT_EQ(View(&client, protocol::View::kStats, 0, 0), "0");
  NodeDefinition node;
  node.id = kNode;
  node.name = "dn1";
  node.host = "127.0.0.1";
  node.port = datanode_.port();
  for (const std::int64_t matches : {1, 0}) {
    ASSERT_TRUE(client.Send(protocol::Check{2, {node}}).ok());
    std::optional<ClientReply> reply = Reply(&client);
    ASSERT_TRUE(reply && std::holds_alternative<protocol::Done>(reply->reply));
    EXPECT_EQ(std::get<protocol::Done>(reply->reply).value, matches);
    node.max_pool_size = 7;
  }
}

TEST_F(PoolerTest, ALongLeaseIsHandedOutWithItsHolder) {
  settings_.lease_warn_after = seconds(1);
  Start();
  PoolerClient client = Attach();
  const Lease lease = Acquire(&client);
  LongLease told;
  ASSERT_TRUE(TurnUntil([&] { return pooler_->NextLongLease(&told); }));
  EXPECT_EQ(told.node, "dn1");
  EXPECT_EQ(told.remote_user, "u");
  EXPECT_EQ(told.session_pid, getpid());
  EXPECT_EQ(told.remote_pid, PQbackendPID(lease.conn));
  EXPECT_GE(told.seconds, 1);
  Release(&client, lease);
}

TEST_F(PoolerTest, PrintsStatLinesAtTheInterval) {
  settings_.pool_print_stat_timeout = seconds(1);
  Start();
  PoolerClient client = Attach();
  Release(&client, Acquire(&client));
  std::vector<std::string> lines;
  ASSERT_TRUE(TurnUntil([&] {
    LogRecord record;
    while (pooler_->NextLog(&record)) {
      lines.emplace_back(record.message);
    }
    return lines.size() >= 2;
  }));
  EXPECT_EQ(lines[0].rfind("[pooler stat] database=postgres client_request_conn_total=1 ", 0), 0u);
  EXPECT_EQ(lines[1].rfind("[pooler stat] database=postgres node=dn1 user=u total=1 ", 0), 0u);
}

}  // namespace
}  // namespace polarx
