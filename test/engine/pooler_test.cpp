// The whole engine in one process: sessions over a real Unix socket, a scripted datanode, and the
// answers of the pg side given by hand.
#include "polarx_pooler/engine/pooler.h"

#include <gtest/gtest.h>
#include <libpq-fe.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>
#include <optional>

#include "fake/fake_datanode.h"
#include "polarx_pooler/engine/adopt.h"
#include "polarx_pooler/engine/pooler_client.h"

namespace polarx {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr NodeId kNode = 16400;
constexpr RoleId kRole = 10;
constexpr std::uint64_t kGeneration = 5;

class PoolerTest : public ::testing::Test {
 protected:
  PoolerTest() {
    char name[] = "/tmp/polarx_pooler_test_XXXXXX";
    directory_ = mkdtemp(name);
    settings_.min_pool_size = 0;
    settings_.min_free_size = 0;
    settings_.pool_print_stat_timeout = kOff;
  }
  ~PoolerTest() override {
    pooler_.reset();
    std::filesystem::remove_all(directory_);
  }

  void Start(int threads = 2) {
    PoolerConfig config;
    config.database = "postgres";
    config.generation = kGeneration;
    config.worker_threads = threads;
    config.listener = Listen();
    Result<std::unique_ptr<Pooler>> pooler = Pooler::Start(std::move(config), settings_);
    ASSERT_TRUE(pooler.ok());
    pooler_ = std::move(pooler.value());
    NodeDefinition node;
    node.id = kNode;
    node.name = "dn1";
    node.host = "127.0.0.1";
    node.port = datanode_.port();
    pooler_->SetCatalog({node}, {}, Now());
  }

  // One turn of the main loop; waits at most `limit` for something to happen.
  void Turn(Duration limit = milliseconds(20)) {
    pollfd wait{pooler_->fd(), POLLIN, 0};
    poll(&wait, 1, static_cast<int>(limit.count() / 1000));
    const TimePoint now = Now();
    pooler_->Receive(now);
    AttachQuestion attach;
    while (pooler_->NextAttach(&attach)) {
      pooler_->AnswerAttach(attach.session, Status::Ok(), "tester");
    }
    MappingQuestion question;
    while (pooler_->NextMapping(&question)) {
      MappingDefinition mapping;
      mapping.node = question.node;
      mapping.role = question.role;
      mapping.role_name = "tester";
      mapping.restricted = false;
      mapping.remote_user = "u";
      mapping.options = {{"dbname", "d"},        {"gssencmode", "disable"},
                         {"host", "127.0.0.1"},  {"port", std::to_string(datanode_.port())},
                         {"sslmode", "disable"}, {"user", "u"}};
      if (question.node != kNode) {
        mapping.status = Status(sqlstate::kUndefinedObject, "no such node");
      }
      pooler_->AnswerMapping(nullptr, std::move(mapping));
    }
    (void)pooler_->NextReload();
    pooler_->Serve(now);
  }
  template <typename Condition>
  ::testing::AssertionResult TurnUntil(Condition condition) {
    const TimePoint deadline = Now() + seconds(10);
    while (!condition()) {
      if (Now() > deadline) {
        return ::testing::AssertionFailure() << "the condition did not come true";
      }
      Turn();
    }
    return ::testing::AssertionSuccess();
  }

  PoolerClient Attach() {
    PoolerClient client = Client();
    EXPECT_TRUE(client.Send(protocol::Attach{protocol::kVersion, kGeneration}).ok());
    const std::optional<ClientReply> reply = Reply(&client);
    EXPECT_TRUE(reply && std::holds_alternative<protocol::Attached>(reply->reply));
    return client;
  }
  PoolerClient Client() {
    Result<std::optional<PoolerClient>> client = PoolerClient::Connect(Path(), getpid());
    EXPECT_TRUE(client.ok());
    return std::move(*client.value());
  }
  std::optional<ClientReply> Reply(PoolerClient* client) {
    std::optional<ClientReply> reply;
    EXPECT_TRUE(TurnUntil([&] {
      Result<std::optional<ClientReply>> received = client->Receive();
      EXPECT_TRUE(received.ok());
      if (received.ok() && received.value().has_value()) {
        reply = std::move(received.value());
      }
      return reply.has_value() || !received.ok();
    }));
    return reply;
  }
  void Ask(PoolerClient* client, std::uint32_t request, std::uint32_t queue_timeout_ms = 0) {
    ASSERT_TRUE(client->Send(protocol::Acquire{request, queue_timeout_ms, {{kNode, kRole}}}).ok());
  }
  struct Lease {
    std::uint64_t id = 0;
    PGconn* conn = nullptr;
  };
  Lease Acquire(PoolerClient* client, std::uint32_t request = 1) {
    Ask(client, request);
    std::optional<ClientReply> reply = Reply(client);
    auto* granted = reply ? std::get_if<protocol::Granted>(&reply->reply) : nullptr;
    if (granted == nullptr || reply->fds.size() != 1) {
      ADD_FAILURE() << "not granted";
      return {};
    }
    const protocol::GrantedLease& lease = granted->leases[0];
    Result<PGconn*> conn =
        AdoptConnection(std::move(reply->fds[0]), lease.backend_pid, lease.parameters, seconds(10));
    EXPECT_TRUE(conn.ok());
    return {lease.lease, conn.ok() ? conn.value() : nullptr};
  }
  void Release(PoolerClient* client, Lease lease,
               protocol::ReleaseKind kind = protocol::ReleaseKind::kClean) {
    DetachConnection(lease.conn);
    PQfinish(lease.conn);
    ASSERT_TRUE(client->Send(protocol::Release{{{lease.id, kind, {}}}}).ok());
  }
  std::string View(PoolerClient* client, protocol::View view, std::size_t row, std::size_t column) {
    EXPECT_TRUE(client->Send(protocol::Show{99, view}).ok());
    std::optional<ClientReply> reply = Reply(client);
    auto* rows = reply ? std::get_if<protocol::Rows>(&reply->reply) : nullptr;
    if (rows == nullptr || rows->rows.size() <= row) {
      return "";
    }
    return rows->rows[row][column].value_or("");
  }
  std::string Path() const { return directory_ + "/s"; }
  UniqueFd Listen() {
    UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    strncpy(address.sun_path, Path().c_str(), sizeof(address.sun_path) - 1);
    EXPECT_EQ(bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    EXPECT_EQ(listen(fd.get(), 64), 0);
    return fd;
  }

  FakeDatanode datanode_;
  std::string directory_;
  Settings settings_;
  std::unique_ptr<Pooler> pooler_;
};

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
