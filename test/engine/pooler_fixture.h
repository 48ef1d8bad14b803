// The whole engine in one process: sessions over a real Unix socket, a scripted datanode, and the
// answers of the pg side given by hand.
#pragma once

#include "engine/pooler.h"

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
#include <span>

#include "fake/fake_datanode.h"
#include "engine/adopt.h"
#include "engine/pooler_client.h"

namespace polarx {
using std::chrono::milliseconds;
using std::chrono::seconds;

inline constexpr NodeId kNode = 16400;
inline constexpr RoleId kRole = 10;
inline constexpr std::uint64_t kGeneration = 5;

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
    config.user = user_;
    config.node_cells = node_cells_;
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
      pooler_->AnswerAttach(attach.session, Status::Ok(), "tester", lease_cells_);
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
      pooler_->AnswerMapping(nullptr, std::move(mapping), Now());
    }
    (void)pooler_->TakeReload();
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
    const protocol::Acquire acquire{request, queue_timeout_ms, false, {{kNode, kRole}}};
    ASSERT_TRUE(client->Send(acquire).ok());
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
    Result<PGconn*> conn = AdoptConnection(std::move(reply->fds[0]), lease.backend_pid,
                                           reply->parameters[0]->values, seconds(10));
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
  uid_t user_ = geteuid();  // whose processes the pooler lets in
  Settings settings_;
  std::span<NodeCell> node_cells_;    // none: leases have no cells
  LeaseCell* lease_cells_ = nullptr;  // of the next session
  std::unique_ptr<Pooler> pooler_;
};

}  // namespace polarx
