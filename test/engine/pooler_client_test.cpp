// The session's end of the pooler's socket, against a listener of the test's own.
#include "engine/pooler_client.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "engine/fd_passing.h"

namespace polarx {
namespace {

class PoolerClientTest : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/polarx_client_XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    directory_ = name;
    path_ = directory_ + "/s";
    Listen(16);
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  void Listen(int backlog) {
    ::unlink(path_.c_str());
    listener_.Reset(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path_.copy(address.sun_path, sizeof(address.sun_path) - 1);
    ASSERT_EQ(::bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    ASSERT_EQ(::listen(listener_.get(), backlog), 0);
  }
  void Connect() {
    Result<std::optional<PoolerClient>> client = PoolerClient::Connect(path_, ::getpid());
    ASSERT_TRUE(client.ok()) << client.status().message();
    client_ = std::move(client.value());
    pooler_.Reset(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    ASSERT_TRUE(pooler_);
  }

  void PoolerSends(std::string_view bytes, const std::vector<int>& fds = {}) {
    const Result<SendProgress> sent = SendWithFds(pooler_.get(), bytes, fds);
    ASSERT_TRUE(sent.ok());
    ASSERT_EQ(sent.value().bytes, bytes.size());
    ASSERT_EQ(sent.value().fds, fds.size());
  }
  // The next reply, which must be there.
  ClientReply Next() {
    Result<std::optional<ClientReply>> reply = client_->Receive();
    EXPECT_TRUE(reply.ok()) << reply.status().message();
    EXPECT_TRUE(reply.ok() && reply.value().has_value());
    return reply.ok() && reply.value() ? std::move(*reply.value()) : ClientReply{};
  }
  bool NothingYet() {
    const Result<std::optional<ClientReply>> reply = client_->Receive();
    return reply.ok() && !reply.value().has_value();
  }
  std::string ErrorOfReceive() {
    const Result<std::optional<ClientReply>> reply = client_->Receive();
    return reply.ok() ? "no error" : reply.status().sqlstate();
  }

  static std::string Frame(const protocol::Reply& reply) {
    std::string frame;
    protocol::Encode(reply, &frame);
    return frame;
  }
  static protocol::Granted GrantOf(std::uint32_t request, std::vector<std::uint64_t> leases) {
    protocol::Granted granted{request, {}};
    for (const std::uint64_t lease : leases) {
      granted.leases.push_back(
          {.lease = lease, .backend_pid = 100, .parameters = {{"TimeZone", "UTC"}}});
    }
    return granted;
  }

  std::string directory_, path_;
  UniqueFd listener_, pooler_;
  std::optional<PoolerClient> client_;
};

// Files that can be told apart.
ino_t Identity(int fd) {
  struct stat found {};
  EXPECT_EQ(::fstat(fd, &found), 0);
  return found.st_ino;
}

UniqueFd File() { return UniqueFd(::memfd_create("lease", MFD_CLOEXEC)); }

TEST_F(PoolerClientTest, ConnectsCloseOnExecAndWithoutBlocking) {
  Connect();
  EXPECT_EQ(::fcntl(client_->fd(), F_GETFD), FD_CLOEXEC);
  EXPECT_NE(::fcntl(client_->fd(), F_GETFL) & O_NONBLOCK, 0);
}

TEST_F(PoolerClientTest, RefusesAListenerThatIsNotTheWorker) {
  const auto client = PoolerClient::Connect(path_, ::getpid() + 1);
  ASSERT_FALSE(client.ok());
  EXPECT_EQ(client.status().sqlstate(), "08001");
  EXPECT_NE(client.status().message().find("process " + std::to_string(::getpid())),
            std::string::npos);
}

TEST_F(PoolerClientTest, NamesTheSocketThatIsNotThere) {
  const auto client = PoolerClient::Connect(directory_ + "/none", ::getpid());
  ASSERT_FALSE(client.ok());
  EXPECT_EQ(client.status().sqlstate(), "08001");
  EXPECT_EQ(client.status().message(), "could not connect to the pooler's socket \"" + directory_ +
                                           "/none\": No such file or directory");
}

TEST_F(PoolerClientTest, RefusesAPathThatDoesNotFit) {
  EXPECT_FALSE(PoolerClient::Connect(std::string(108, 'x'), ::getpid()).ok());
  EXPECT_FALSE(PoolerClient::Connect("", ::getpid()).ok());
}

TEST_F(PoolerClientTest, AFullBacklogIsToldAsPassing) {
  Listen(0);
  std::vector<std::optional<PoolerClient>> waiting;
  std::string last;
  for (int i = 0; i < 10 && last.empty(); ++i) {
    Result<std::optional<PoolerClient>> client = PoolerClient::Connect(path_, ::getpid());
    if (client.ok()) {
      waiting.push_back(std::move(client.value()));
    } else {
      last = client.status().sqlstate();
    }
  }
  EXPECT_EQ(last, "57P03");
  pooler_.Reset(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  EXPECT_TRUE(PoolerClient::Connect(path_, ::getpid()).ok());
}

TEST_F(PoolerClientTest, SendsRequests) {
  Connect();
  ASSERT_TRUE(client_->Send(protocol::Attach{}).ok());
  ASSERT_TRUE(client_->Send(protocol::Acquire{7, 0, false, {{16384, 10}}}).ok());
  EXPECT_FALSE(client_->HasUnsent());
  std::string data;
  ASSERT_TRUE(ReceiveWithFds(pooler_.get(), &data, nullptr).ok());
  const auto first = protocol::FrameLength(data, protocol::kMaxRequestSize);
  ASSERT_TRUE(first.ok());
  const auto second = protocol::DecodeRequest(std::string_view(data).substr(first.value()));
  ASSERT_TRUE(second.ok()) << second.status().message();
  const auto& acquire = std::get<protocol::Acquire>(second.value());
  EXPECT_EQ(acquire.request, 7u);
  EXPECT_EQ(acquire.wanted.at(0).node, 16384u);
}

TEST_F(PoolerClientTest, KeepsWhatDoesNotGoAndSendsItLater) {
  Connect();
  std::string expected;
  protocol::Acquire large{1, 0, false, std::vector<protocol::Wanted>(4000, {1, 2})};
  while (!client_->HasUnsent()) {
    ASSERT_TRUE(client_->Send(large).ok());
    protocol::Encode(protocol::Request(large), &expected);
  }
  std::string received;
  while (received.size() < expected.size()) {
    const auto state = ReceiveWithFds(pooler_.get(), &received, nullptr);
    ASSERT_TRUE(state.ok());
    if (state.value() == ReceiveState::kWouldBlock) {
      ASSERT_TRUE(client_->HasUnsent());
      ASSERT_TRUE(client_->Flush().ok());
    }
  }
  EXPECT_EQ(received, expected);
  EXPECT_FALSE(client_->HasUnsent());
}

TEST_F(PoolerClientTest, SendingToAPoolerThatIsGoneIsAnError) {
  Connect();
  pooler_.Reset();
  const Status status = client_->Send(protocol::Reload{1});
  EXPECT_EQ(status.sqlstate(), "08006");
}

TEST_F(PoolerClientTest, TakesRepliesOneByOne) {
  Connect();
  EXPECT_TRUE(NothingYet());
  PoolerSends(Frame(protocol::Attached{42}) + Frame(protocol::Done{3, -1}));
  EXPECT_EQ(std::get<protocol::Attached>(Next().reply).generation, 42u);
  EXPECT_EQ(std::get<protocol::Done>(Next().reply).value, -1);
  EXPECT_TRUE(NothingYet());
}

TEST_F(PoolerClientTest, PutsPiecesTogether) {
  Connect();
  UniqueFd file = File();
  const std::string frame = Frame(GrantOf(5, {1}));
  PoolerSends(frame.substr(0, 1), {file.get()});
  for (std::size_t i = 1; i < frame.size(); ++i) {
    ASSERT_TRUE(NothingYet()) << i;
    PoolerSends(frame.substr(i, 1));
  }
  const ClientReply reply = Next();
  EXPECT_EQ(std::get<protocol::Granted>(reply.reply).request, 5u);
  ASSERT_EQ(reply.fds.size(), 1u);
  EXPECT_EQ(Identity(reply.fds[0].get()), Identity(file.get()));
}

TEST_F(PoolerClientTest, GivesEachGrantItsDescriptors) {
  Connect();
  UniqueFd one = File(), two = File(), three = File();
  PoolerSends(Frame(protocol::Done{1, 0}));
  PoolerSends(Frame(GrantOf(2, {10, 11})), {one.get(), two.get()});
  PoolerSends(Frame(GrantOf(3, {12})), {three.get()});
  EXPECT_TRUE(Next().fds.empty());
  const ClientReply first = Next();
  ASSERT_EQ(first.fds.size(), 2u);
  EXPECT_EQ(Identity(first.fds[0].get()), Identity(one.get()));
  EXPECT_EQ(Identity(first.fds[1].get()), Identity(two.get()));
  EXPECT_EQ(::fcntl(first.fds[0].get(), F_GETFD), FD_CLOEXEC);
  const ClientReply second = Next();
  ASSERT_EQ(second.fds.size(), 1u);
  EXPECT_EQ(Identity(second.fds[0].get()), Identity(three.get()));
}

TEST_F(PoolerClientTest, DescriptorsBesideAnotherReplyAreAViolation) {
  Connect();
  UniqueFd stray = File(), own = File();
  PoolerSends(Frame(protocol::Done{1, 0}), {stray.get()});
  PoolerSends(Frame(GrantOf(2, {10})), {own.get()});
  const auto reply = client_->Receive();
  ASSERT_FALSE(reply.ok());
  EXPECT_EQ(reply.status().detail(), "1 descriptors for 0 leases.");
}

TEST_F(PoolerClientTest, AGrantWithoutItsDescriptorsIsAViolation) {
  Connect();
  UniqueFd file = File();
  PoolerSends(Frame(GrantOf(2, {10, 11})), {file.get()});
  const auto reply = client_->Receive();
  ASSERT_FALSE(reply.ok());
  EXPECT_EQ(reply.status().sqlstate(), "08P01");
  EXPECT_EQ(reply.status().detail(), "1 descriptors for 2 leases.");
}

// --- sets of parameter values -------------------------------------------------------------------

protocol::Granted GrantOfSet(std::uint32_t request, std::uint64_t set, bool told) {
  protocol::GrantedLease lease;
  lease.lease = request;
  lease.parameter_set = set;
  lease.told = told;
  if (!told) {
    lease.parameters = {{"TimeZone", "Zone/" + std::to_string(set)}};
  }
  return {request, {lease}};
}

TEST_F(PoolerClientTest, ASetIsSentOnceAndNamedLater) {
  Connect();
  UniqueFd file = File();
  PoolerSends(Frame(GrantOfSet(1, 5, false)), {file.get()});
  PoolerSends(Frame(GrantOfSet(2, 5, true)), {file.get()});
  const ClientReply first = Next();
  ASSERT_EQ(first.parameters.size(), 1u);
  EXPECT_EQ(first.parameters[0]->id, 5u);
  EXPECT_EQ(first.parameters[0]->values, (protocol::Parameters{{"TimeZone", "Zone/5"}}));
  const ClientReply second = Next();
  ASSERT_EQ(second.parameters.size(), 1u);
  EXPECT_EQ(second.parameters[0], first.parameters[0]);
}

TEST_F(PoolerClientTest, OneGrantMaySendASetAndNameIt) {
  Connect();
  UniqueFd file = File();
  protocol::Granted granted = GrantOfSet(1, 5, false);
  granted.leases.push_back(GrantOfSet(1, 6, false).leases[0]);
  granted.leases.push_back(GrantOfSet(1, 5, true).leases[0]);
  PoolerSends(Frame(granted), {file.get(), file.get(), file.get()});
  const ClientReply reply = Next();
  ASSERT_EQ(reply.parameters.size(), 3u);
  EXPECT_EQ(reply.parameters[0]->id, 5u);
  EXPECT_EQ(reply.parameters[1]->id, 6u);
  EXPECT_EQ(reply.parameters[2], reply.parameters[0]);
}

// Its taker has withdrawn it and throws it away.
TEST_F(PoolerClientTest, ASetThatCameWithAReplyThrownAwayIsKnown) {
  Connect();
  UniqueFd file = File();
  PoolerSends(Frame(GrantOfSet(1, 5, false)), {file.get()});
  (void)Next();
  PoolerSends(Frame(GrantOfSet(2, 5, true)), {file.get()});
  EXPECT_EQ(Next().parameters.at(0)->values, (protocol::Parameters{{"TimeZone", "Zone/5"}}));
}

TEST_F(PoolerClientTest, NamingASetThatWasNotSentIsAViolation) {
  Connect();
  UniqueFd file = File();
  PoolerSends(Frame(GrantOfSet(1, 5, false)), {file.get()});
  (void)Next();
  PoolerSends(Frame(GrantOfSet(2, 6, true)), {file.get()});
  const auto reply = client_->Receive();
  ASSERT_FALSE(reply.ok());
  EXPECT_EQ(reply.status().sqlstate(), "08P01");
  EXPECT_EQ(reply.status().detail(), "It names a set of parameter values that it has not sent.");
}

TEST_F(PoolerClientTest, TheLastSixteenSetsAreKnown) {
  Connect();
  UniqueFd file = File();
  for (std::uint32_t set = 1; set <= kSetsOfASession + 1; ++set) {
    PoolerSends(Frame(GrantOfSet(set, set, false)), {file.get()});
    (void)Next();
  }
  for (std::uint32_t set = 2; set <= kSetsOfASession + 1; ++set) {
    PoolerSends(Frame(GrantOfSet(set, set, true)), {file.get()});
    EXPECT_EQ(Next().parameters.at(0)->id, set);
  }
  PoolerSends(Frame(GrantOfSet(1, 1, true)), {file.get()});
  EXPECT_EQ(ErrorOfReceive(), "08P01");
}

TEST_F(PoolerClientTest, GarbageIsAViolation) {
  Connect();
  PoolerSends(std::string(8, '\0'));
  EXPECT_EQ(ErrorOfReceive(), "08P01");
}

TEST_F(PoolerClientTest, AnUnknownReplyIsAViolation) {
  Connect();
  PoolerSends(std::string("\0\0\0\10\x7f\x7f\x7f\x7f", 8));
  EXPECT_EQ(ErrorOfReceive(), "08P01");
}

TEST_F(PoolerClientTest, TheEndIsToldAfterTheLastReply) {
  Connect();
  PoolerSends(Frame(protocol::Done{1, 5}) + Frame(protocol::Done{2, 6}).substr(0, 5));
  pooler_.Reset();
  EXPECT_EQ(std::get<protocol::Done>(Next().reply).value, 5);
  EXPECT_EQ(ErrorOfReceive(), "08006");
}

TEST_F(PoolerClientTest, TakesALongView) {
  Connect();
  const protocol::Rows rows{
      9, std::vector<protocol::Row>(5000, {std::string(100, 'v'), std::nullopt})};
  const std::string frame = Frame(rows);
  std::size_t sent = 0;
  std::optional<ClientReply> got;
  while (!got) {
    const auto progress = SendWithFds(pooler_.get(), std::string_view(frame).substr(sent), {});
    ASSERT_TRUE(progress.ok());
    sent += progress.value().bytes;
    Result<std::optional<ClientReply>> reply = client_->Receive();
    ASSERT_TRUE(reply.ok());
    got = std::move(reply.value());
  }
  EXPECT_EQ(std::get<protocol::Rows>(got->reply).rows, rows.rows);
}

}  // namespace
}  // namespace polarx
