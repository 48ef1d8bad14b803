// What sessions ask of the pooler and what becomes of them, with the whole engine in one process.
#include "pooler_fixture.h"

namespace polarx {
namespace {

TEST_F(PoolerTest, LendsAConnectionThatWorksAndLendsItAgainAfterAReset) {
  Start();
  PoolerClient first = Attach();
  Lease lease = Acquire(&first);
  PGresult* result = PQexec(lease.conn, "ECHO hello");
  EXPECT_STREQ(PQgetvalue(result, 0, 0), "hello");
  PQclear(result);
  const int pid = PQbackendPID(lease.conn);
  Release(&first, lease);
  ASSERT_TRUE(TurnUntil([&] { return datanode_.counts().statements.size() == 2; }));
  EXPECT_EQ(datanode_.counts().statements.back(), "DISCARD ALL");
  PoolerClient second = Attach();
  lease = Acquire(&second);
  EXPECT_EQ(PQbackendPID(lease.conn), pid);
  EXPECT_EQ(datanode_.counts().opened, 1);
  Release(&second, lease);
}

TEST_F(PoolerTest, RollsBackFirstWhatWasLeftInATransaction) {
  Start();
  PoolerClient client = Attach();
  Lease lease = Acquire(&client);
  PQclear(PQexec(lease.conn, "BEGIN"));
  Release(&client, lease, protocol::ReleaseKind::kInTransaction);
  ASSERT_TRUE(TurnUntil([&] { return datanode_.counts().statements.size() == 3; }));
  EXPECT_EQ(datanode_.counts().statements,
            (std::vector<std::string>{"BEGIN", "ROLLBACK", "DISCARD ALL"}));
}

TEST_F(PoolerTest, ADeadSessionsLeaseIsCancelledAndClosed) {
  Start();
  {
    PoolerClient client = Attach();
    Lease lease = Acquire(&client);
    ASSERT_EQ(PQsendQuery(lease.conn, "SLEEP"), 1);
    PQflush(lease.conn);
    ASSERT_TRUE(datanode_.WaitUntil([](const auto& c) { return !c.statements.empty(); }));
    DetachConnection(lease.conn);
    PQfinish(lease.conn);
  }
  EXPECT_TRUE(TurnUntil([&] {
    const FakeDatanode::Counts counts = datanode_.counts();
    return counts.open == 0 && counts.cancels == 1;
  }));
}

TEST_F(PoolerTest, ACancelNamesALeaseOfOnesOwn) {
  Start();
  PoolerClient client = Attach();
  PoolerClient stranger = Attach();
  Lease lease = Acquire(&client);
  ASSERT_EQ(PQsendQuery(lease.conn, "SLEEP"), 1);
  ASSERT_TRUE(datanode_.WaitUntil([](const auto& c) { return !c.statements.empty(); }));
  ASSERT_TRUE(stranger.Send(protocol::Cancel{lease.id}).ok());
  EXPECT_EQ(View(&stranger, protocol::View::kStats, 0, 0), "1") << "its cancel has been handled";
  EXPECT_EQ(datanode_.counts().cancels, 0);
  ASSERT_TRUE(client.Send(protocol::Cancel{lease.id}).ok());
  ASSERT_TRUE(TurnUntil([&] { return datanode_.counts().cancels == 1; }));
  PGresult* result = PQgetResult(lease.conn);
  EXPECT_STREQ(PQresultErrorField(result, PG_DIAG_SQLSTATE), "57014");
  PQclear(result);
  Release(&client, lease, protocol::ReleaseKind::kClose);
}

TEST_F(PoolerTest, TheSessionHearsWhenItsCancelIsThrough) {
  Start();
  PoolerClient client = Attach();
  Lease lease = Acquire(&client);
  ASSERT_EQ(PQsendQuery(lease.conn, "SLEEP"), 1);
  ASSERT_TRUE(datanode_.WaitUntil([](const auto& c) { return !c.statements.empty(); }));
  ASSERT_TRUE(client.Send(protocol::Cancel{lease.id, 7}).ok());
  const std::optional<ClientReply> reply = Reply(&client);
  ASSERT_TRUE(reply.has_value());
  const auto* cancelled = std::get_if<protocol::Cancelled>(&reply->reply);
  ASSERT_NE(cancelled, nullptr);
  EXPECT_EQ(cancelled->lease, lease.id);
  EXPECT_EQ(cancelled->number, 7u);
  EXPECT_EQ(datanode_.counts().cancels, 1) << "not before the datanode has it";
  Release(&client, lease, protocol::ReleaseKind::kClose);
}

TEST_F(PoolerTest, AWithdrawnRequestStillGetsItsOneReply) {
  settings_.max_pool_size = 1;
  Start();
  PoolerClient holder = Attach();
  Lease lease = Acquire(&holder);
  PoolerClient client = Attach();
  Ask(&client, 8, 60000);
  ASSERT_TRUE(client.Send(protocol::Withdraw{8}).ok());
  std::optional<ClientReply> reply = Reply(&client);
  ASSERT_TRUE(reply && std::holds_alternative<protocol::Failed>(reply->reply));
  EXPECT_EQ(std::get<protocol::Failed>(reply->reply).status.sqlstate(), "57014");
  Release(&holder, lease);
}

TEST_F(PoolerTest, ARequestWithdrawnAfterItWasGrantedGivesTheLeaseBack) {
  Start();
  PoolerClient client = Attach();
  Ask(&client, 8);
  std::optional<ClientReply> reply = Reply(&client);
  ASSERT_TRUE(reply && std::holds_alternative<protocol::Granted>(reply->reply));
  reply.reset();
  ASSERT_TRUE(client.Send(protocol::Withdraw{8}).ok());
  EXPECT_EQ(View(&client, protocol::View::kPools, 0, 5), "1") << "idle again";
}

// Both connections report the same.
TEST_F(PoolerTest, ParameterValuesGoOutOncePerSession) {
  Start();
  const auto grant = [this](PoolerClient* client, std::uint32_t request) {
    Ask(client, request);
    std::optional<ClientReply> reply = Reply(client);
    auto* granted = reply ? std::get_if<protocol::Granted>(&reply->reply) : nullptr;
    EXPECT_NE(granted, nullptr);
    return granted != nullptr ? granted->leases.at(0) : protocol::GrantedLease();
  };
  PoolerClient first = Attach();
  PoolerClient second = Attach();
  const protocol::GrantedLease one = grant(&first, 1);
  const protocol::GrantedLease two = grant(&first, 2);
  const protocol::GrantedLease other = grant(&second, 1);
  EXPECT_FALSE(one.told);
  EXPECT_TRUE(two.told);
  EXPECT_TRUE(two.parameters.empty());
  EXPECT_NE(two.slot, one.slot);
  EXPECT_FALSE(other.told) << "another session";
  EXPECT_NE(one.parameter_set, 0u);
  EXPECT_EQ(two.parameter_set, one.parameter_set);
  EXPECT_EQ(other.parameter_set, one.parameter_set);
}

TEST_F(PoolerTest, ADatanodeThatIsDownIsToldAtOnceAndFoundAgain) {
  Start();
  datanode_.SetBehaviour({.startup = FakeBehaviour::Startup::kRefuse});
  PoolerClient client = Attach();
  Ask(&client, 1);
  std::optional<ClientReply> reply = Reply(&client);
  ASSERT_TRUE(reply && std::holds_alternative<protocol::Failed>(reply->reply));
  EXPECT_EQ(std::get<protocol::Failed>(reply->reply).status.sqlstate(), "08001")
      << std::get<protocol::Failed>(reply->reply).status.message();
  datanode_.SetBehaviour({});
  bool granted = false;
  ASSERT_TRUE(TurnUntil([&] {
    Ask(&client, 2);
    std::optional<ClientReply> again = Reply(&client);
    granted = again && std::holds_alternative<protocol::Granted>(again->reply);
    return granted;
  }));
}

TEST_F(PoolerTest, AnIdleConnectionThatDiedIsNotLent) {
  Start();
  PoolerClient client = Attach();
  Release(&client, Acquire(&client));
  ASSERT_TRUE(TurnUntil([&] { return datanode_.counts().statements.size() == 1; }));
  datanode_.HangUp();
  ASSERT_TRUE(datanode_.WaitUntil([](const auto& c) { return c.open == 0; }));
  Lease lease = Acquire(&client, 2);
  PGresult* result = PQexec(lease.conn, "ECHO alive");
  EXPECT_STREQ(PQgetvalue(result, 0, 0), "alive");
  PQclear(result);
  Release(&client, lease);
}

TEST_F(PoolerTest, GarbageEndsThatClientAlone) {
  Start();
  PoolerClient good = Attach();
  for (const std::string& bytes :
       {std::string("\0\0\0\3abcd", 8), std::string("\x7f\xff\xff\xff\0\0\0\1", 8),
        std::string("\0\0\0\x0c\0\0\0\1zzzz", 12), std::string(5000, 'x')}) {
    PoolerClient bad = Client();
    ASSERT_GT(send(bad.fd(), bytes.data(), bytes.size(), MSG_NOSIGNAL), 0);
    ASSERT_TRUE(TurnUntil([&] { return !bad.Receive().ok(); }));
  }
  {
    PoolerClient hanging = Client();
    ASSERT_EQ(send(hanging.fd(), "\0\0\0", 3, 0), 3);
  }
  Release(&good, Acquire(&good));
}

TEST_F(PoolerTest, ARequestBeforeTheAttachIsAViolation) {
  Start();
  PoolerClient client = Client();
  Ask(&client, 1);
  EXPECT_TRUE(TurnUntil([&] { return !client.Receive().ok(); }));
}

TEST_F(PoolerTest, ASessionOfAnotherWorkersGenerationIsToldAndSentAway) {
  Start();
  PoolerClient client = Client();
  ASSERT_TRUE(client.Send(protocol::Attach{protocol::kVersion, kGeneration + 1}).ok());
  std::optional<ClientReply> reply = Reply(&client);
  ASSERT_TRUE(reply && std::holds_alternative<protocol::Failed>(reply->reply));
  EXPECT_EQ(std::get<protocol::Failed>(reply->reply).status.sqlstate(), "57P03");
  EXPECT_TRUE(TurnUntil([&] { return !client.Receive().ok(); }));
}

TEST_F(PoolerTest, AReleaseOfAnothersLeaseIsAViolation) {
  Start();
  PoolerClient owner = Attach();
  PoolerClient thief = Attach();
  Lease lease = Acquire(&owner);
  ASSERT_TRUE(thief.Send(protocol::Release{{{lease.id, protocol::ReleaseKind::kClean, {}}}}).ok());
  EXPECT_TRUE(TurnUntil([&] { return !thief.Receive().ok(); }));
  PGresult* result = PQexec(lease.conn, "ECHO mine");
  EXPECT_STREQ(PQgetvalue(result, 0, 0), "mine");
  PQclear(result);
  Release(&owner, lease);
}

TEST_F(PoolerTest, SpreadsTheConnectionsOfANodeOverItsThreads) {
  settings_.min_pool_size = 4;
  Start(2);
  PoolerClient client = Attach();
  Lease lease = Acquire(&client);
  ASSERT_TRUE(TurnUntil([&] { return datanode_.counts().open == 4; }));
  ASSERT_TRUE(client.Send(protocol::Show{1, protocol::View::kConnections}).ok());
  std::optional<ClientReply> reply = Reply(&client);
  std::map<std::string, int> threads;
  for (const protocol::Row& row : std::get<protocol::Rows>(reply->reply).rows) {
    ++threads[*row.back()];
  }
  EXPECT_EQ(threads["0"], 2);
  EXPECT_EQ(threads["1"], 2);
  Release(&client, lease);
}

TEST_F(PoolerTest, StopsWithinASecondWhileConnectsHang) {
  Start();
  datanode_.SetBehaviour({.startup = FakeBehaviour::Startup::kSilent});
  PoolerClient client = Attach();
  Ask(&client, 1);
  ASSERT_TRUE(TurnUntil([&] { return datanode_.counts().open == 1; }));
  const TimePoint begin = Now();
  EXPECT_TRUE(pooler_->Stop());
  EXPECT_LT(Now() - begin, seconds(1));
}

}  // namespace
}  // namespace polarx
