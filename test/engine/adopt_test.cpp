// Adoption: a scripted datanode at the other end of a socketpair, libpq at this one.
#include "engine/adopt.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "descriptors.h"
#include "scripted_datanode.h"

namespace {
// Runs when somebody begins to listen, before anyone else can connect.
std::function<void(int)> after_listen;  // NOLINT
}  // namespace

// Stands before libc's for this program.
extern "C" int listen(int fd, int backlog) noexcept {
  const auto result = static_cast<int>(::syscall(SYS_listen, fd, backlog));
  if (result == 0 && after_listen) {
    after_listen(fd);
  }
  return result;
}

namespace polarx {
namespace {

constexpr Duration kLimit = std::chrono::seconds(10);
const protocol::Parameters kParameters = {
    {"server_version", "15.7"},    {"client_encoding", "UTF8"},
    {"DateStyle", "ISO, MDY"},     {"TimeZone", "Europe/Berlin"},
    {"application_name", ""},      {"standard_conforming_strings", "on"},
    {"setting_of_the_future", "x"}};

bool IsOpen(int fd) { return ::fcntl(fd, F_GETFD) != -1; }

struct Clear {
  void operator()(PGresult* result) const { PQclear(result); }
};
using OwnedResult = std::unique_ptr<PGresult, Clear>;

class AdoptTest : public testing::Test {
 protected:
  void TearDown() override {
    after_listen = nullptr;
    GiveBack();
  }

  void Adopt() {
    Result<PGconn*> adopted = AdoptConnection(datanode_.Lend(), 4711, kParameters, kLimit);
    ASSERT_TRUE(adopted.ok()) << adopted.status().message();
    conn_ = adopted.value();
  }
  void GiveBack() {
    if (conn_ != nullptr) {
      DetachConnection(conn_);
      PQfinish(conn_);
      conn_ = nullptr;
    }
  }
  OwnedResult Run(const char* sql) { return OwnedResult(PQexec(conn_, sql)); }
  std::string Echo(const char* sql) {
    const OwnedResult result = Run(sql);
    EXPECT_EQ(PQresultStatus(result.get()), PGRES_TUPLES_OK) << PQerrorMessage(conn_);
    return PQntuples(result.get()) == 1 ? PQgetvalue(result.get(), 0, 0) : "no row";
  }

  ScriptedDatanode datanode_;
  PGconn* conn_ = nullptr;
};

TEST_F(AdoptTest, IsAnIdleConnectionOfTheDatanode) {
  Adopt();
  EXPECT_EQ(PQstatus(conn_), CONNECTION_OK);
  EXPECT_EQ(PQtransactionStatus(conn_), PQTRANS_IDLE);
  EXPECT_EQ(PQisnonblocking(conn_), 0);
  EXPECT_EQ(PQbackendPID(conn_), 4711);
  EXPECT_EQ(PQserverVersion(conn_), 150007);
  EXPECT_EQ(PQprotocolVersion(conn_), 3);
  EXPECT_EQ(PQclientEncoding(conn_), pg_char_to_encoding("UTF8"));
  for (const auto& [name, value] : kParameters) {
    EXPECT_STREQ(PQparameterStatus(conn_, name.c_str()), value.c_str()) << name;
  }
}

TEST_F(AdoptTest, ItsDescriptorIsClosedInChildrenAndDoesNotBlock) {
  Adopt();
  EXPECT_EQ(::fcntl(PQsocket(conn_), F_GETFD), FD_CLOEXEC);
  EXPECT_NE(::fcntl(PQsocket(conn_), F_GETFL) & O_NONBLOCK, 0);
}

TEST_F(AdoptTest, SaysNothingToTheDatanodeByItself) {
  Adopt();
  GiveBack();
  EXPECT_EQ(datanode_.BytesUntilTheEnd(), "");
}

TEST_F(AdoptTest, RunsQueriesAndSeesErrors) {
  Adopt();
  EXPECT_EQ(Echo("ECHO hello"), "hello");
  const OwnedResult failed = Run("FAIL 22012 division by zero");
  EXPECT_EQ(PQresultStatus(failed.get()), PGRES_FATAL_ERROR);
  EXPECT_STREQ(PQresultErrorField(failed.get(), PG_DIAG_SQLSTATE), "22012");
  EXPECT_STREQ(PQresultErrorField(failed.get(), PG_DIAG_MESSAGE_PRIMARY), "division by zero");
  EXPECT_EQ(Echo("ECHO again"), "again");
}

TEST_F(AdoptTest, FollowsTransactions) {
  Adopt();
  Run("BEGIN");
  EXPECT_EQ(PQtransactionStatus(conn_), PQTRANS_INTRANS);
  Run("FAIL 42P01 no such table");
  EXPECT_EQ(PQtransactionStatus(conn_), PQTRANS_INERROR);
  Run("ROLLBACK");
  EXPECT_EQ(PQtransactionStatus(conn_), PQTRANS_IDLE);
}

TEST_F(AdoptTest, TellsWhichParametersChanged) {
  Adopt();
  EXPECT_TRUE(ChangedParameters(conn_, kParameters).empty());
  Run("SET TimeZone = UTC");
  Run("SET setting_of_the_future = y");  // reported, though we do not know it
  Run("SET IntervalStyle = postgres");   // reported only now
  Run("SET DateStyle = ISO, MDY");       // as it was
  EXPECT_EQ(
      ChangedParameters(conn_, kParameters),
      (protocol::Parameters{
          {"TimeZone", "UTC"}, {"setting_of_the_future", "y"}, {"IntervalStyle", "postgres"}}));
}

TEST_F(AdoptTest, ReportsTheParametersThatThereAre) {
  Adopt();
  protocol::Parameters known = kParameters;
  known.pop_back();
  protocol::Parameters reported = ReportedParameters(conn_);
  std::sort(known.begin(), known.end());
  std::sort(reported.begin(), reported.end());
  EXPECT_EQ(reported, known);
}

TEST_F(AdoptTest, PipelineModeWorks) {
  Adopt();
  ASSERT_EQ(PQenterPipelineMode(conn_), 1);
  for (const char* sql : {"ECHO one", "FAIL 22012 two", "ECHO three"}) {
    ASSERT_EQ(PQsendQueryParams(conn_, sql, 0, nullptr, nullptr, nullptr, nullptr, 0), 1);
  }
  ASSERT_EQ(PQpipelineSync(conn_), 1);
  std::vector<ExecStatusType> states;
  for (int ends = 0; ends < 3;) {
    const OwnedResult result(PQgetResult(conn_));
    if (result == nullptr) {
      ++ends;
    } else {
      states.push_back(PQresultStatus(result.get()));
    }
  }
  const OwnedResult sync(PQgetResult(conn_));
  EXPECT_EQ(PQresultStatus(sync.get()), PGRES_PIPELINE_SYNC);
  EXPECT_EQ(states, (std::vector{PGRES_TUPLES_OK, PGRES_FATAL_ERROR, PGRES_PIPELINE_ABORTED}));
  ASSERT_EQ(PQexitPipelineMode(conn_), 1);
  EXPECT_EQ(Echo("ECHO after"), "after");
}

TEST_F(AdoptTest, AfterDetachLibpqCannotReachTheDatanode) {
  Adopt();
  Run("ECHO x");
  DetachConnection(conn_);
  EXPECT_EQ(PQresultStatus(Run("ECHO lost").get()), PGRES_FATAL_ERROR);
  PQfinish(conn_);
  conn_ = nullptr;
  const std::string bytes = datanode_.BytesUntilTheEnd();
  EXPECT_NE(bytes.find("ECHO x"), std::string::npos);
  EXPECT_EQ(bytes.size(), sizeof("ECHO x") + 5) << "neither a query nor a goodbye";
}

TEST_F(AdoptTest, AConnectionThatWasGivenBackCanBeLentAgain) {
  for (const char* sql : {"ECHO 1", "ECHO 2", "ECHO 3"}) {
    Adopt();
    EXPECT_EQ(Echo(sql), sql + 5);
    GiveBack();
  }
}

TEST_F(AdoptTest, DetachClosesThisProcesssDescriptor) {
  Adopt();
  DetachConnection(conn_);
  EXPECT_EQ(datanode_.BytesUntilTheEnd(), "");  // it would not end
}

TEST_F(AdoptTest, DetachInTheMiddleOfAnAnswerIsSilent) {
  Adopt();
  ASSERT_EQ(PQsendQuery(conn_, "SLEEP"), 1);
  GiveBack();
  EXPECT_EQ(datanode_.BytesUntilTheEnd().size(), sizeof("SLEEP") + 5);
}

TEST_F(AdoptTest, DetachAfterTheDatanodeHungUpDoesNoHarm) {
  Adopt();
  datanode_.HangUp();
  EXPECT_EQ(PQresultStatus(Run("ECHO x").get()), PGRES_FATAL_ERROR);
  EXPECT_EQ(PQstatus(conn_), CONNECTION_BAD);
  const std::size_t before = OpenDescriptors();
  DetachConnection(conn_);
  DetachConnection(conn_);
  EXPECT_LE(OpenDescriptors(), before);
}

TEST_F(AdoptTest, LeavesNoDescriptorBehind) {
  Adopt();  // makes the placeholder
  GiveBack();
  const std::size_t before = OpenDescriptors();
  for (int i = 0; i < 20; ++i) {
    Adopt();
    EXPECT_EQ(OpenDescriptors(), before + 1);
    GiveBack();
  }
  EXPECT_EQ(OpenDescriptors(), before);
}

TEST_F(AdoptTest, SeveralStandSideBySide) {
  ScriptedDatanode other;
  Adopt();
  Result<PGconn*> second = AdoptConnection(other.Lend(), 4712, kParameters, kLimit);
  ASSERT_TRUE(second.ok());
  EXPECT_EQ(Echo("ECHO first"), "first");
  DetachConnection(second.value());
  PQfinish(second.value());
  EXPECT_EQ(Echo("ECHO still"), "still");
}

TEST_F(AdoptTest, CarriesLongValues) {
  protocol::Parameters parameters = kParameters;
  parameters.emplace_back("search_path", std::string(25'000, 's'));
  Result<PGconn*> adopted = AdoptConnection(datanode_.Lend(), 1, parameters, kLimit);
  ASSERT_TRUE(adopted.ok()) << adopted.status().message();
  conn_ = adopted.value();
  EXPECT_EQ(std::string(PQparameterStatus(conn_, "search_path")).size(), 25'000u);
}

TEST_F(AdoptTest, TheEnvironmentHasNoEffectAndStays) {
  const std::vector<std::pair<const char*, const char*>> variables = {
      {"PGSERVICE", "missing"},         {"PGSSLMODE", "verify-full"},
      {"PGOPTIONS", "-c nonsense=1"},   {"PGREQUIREPEER", "nobody"},
      {"PGHOSTADDR", "192.0.2.1"},      {"PGTARGETSESSIONATTRS", "read-only"},
      {"PGCLIENTENCODING", "nonsense"}, {"PGGSSENCMODE", "require"}};
  for (const auto& [name, value] : variables) {
    ::setenv(name, value, 1);
  }
  Adopt();
  EXPECT_EQ(Echo("ECHO x"), "x");
  for (const auto& [name, value] : variables) {
    EXPECT_STREQ(::getenv(name), value);
    ::unsetenv(name);
  }
}

// Connects to the listener of an adoption, first of all.
int ConnectTo(int listener) {
  sockaddr_un address{};
  socklen_t size = sizeof(address);
  const auto named = reinterpret_cast<sockaddr*>(&address);
  const int socket = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  return ::getsockname(listener, named, &size) == 0 && ::connect(socket, named, size) == 0 ? socket
                                                                                           : -1;
}

// Exit code 0: hung up on without having got a byte.
[[noreturn]] void BeHostile(int listener, int connected) {
  const int socket = ConnectTo(listener);
  ::close(listener);  // this copy would keep it alive
  char byte = 0;
  if (socket < 0 || ::write(connected, &byte, 1) != 1) {
    ::_exit(1);
  }
  ::_exit(::recv(socket, &byte, 1, 0) <= 0 ? 0 : 2);
}

TEST_F(AdoptTest, AnotherProcessThatConnectsFirstIsHungUpOn) {
  pid_t hostile = -1;
  after_listen = [&hostile](int listener) {
    int ends[2];
    ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    UniqueFd connected(ends[0]), child_end(ends[1]);
    hostile = ::fork();
    if (hostile == 0) {
      BeHostile(listener, child_end.get());
    }
    child_end.Reset();
    char byte;
    ASSERT_EQ(::read(connected.get(), &byte, 1), 1);
  };
  Adopt();
  EXPECT_EQ(Echo("ECHO x"), "x");
  int status = -1;
  ASSERT_EQ(::waitpid(hostile, &status, 0), hostile);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST_F(AdoptTest, AnotherThreadThatConnectsFirstIsNotInTheWay) {
  UniqueFd stray;
  after_listen = [&stray](int listener) {
    std::thread([&] { stray.Reset(ConnectTo(listener)); }).join();
  };
  Adopt();
  ASSERT_TRUE(stray);
  EXPECT_EQ(Echo("ECHO x"), "x");
}

TEST_F(AdoptTest, WithoutFreeDescriptorsItFailsAndClosesTheLentOne) {
  Adopt();
  GiveBack();
  rlimit old{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &old), 0);
  // No room at all, for the listener alone, for libpq's socket too but not for the accepted one.
  for (std::size_t room = 0; room < 3; ++room) {
    UniqueFd lent = datanode_.Lend();
    const int lent_fd = lent.get();
    std::vector<UniqueFd> free;
    for (std::size_t i = 0; i <= room; ++i) {
      free.push_back(datanode_.Lend());
    }
    const rlimit tight{static_cast<rlim_t>(free.back().get()), old.rlim_max};
    free.clear();
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &tight), 0);
    const Result<PGconn*> adopted = AdoptConnection(std::move(lent), 1, kParameters, kLimit);
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &old), 0);
    ASSERT_FALSE(adopted.ok()) << room;
    EXPECT_FALSE(IsOpen(lent_fd)) << room;
    EXPECT_EQ(adopted.status().sqlstate(), "53000") << room;
    EXPECT_NE(adopted.status().message().find("Too many open files"), std::string::npos)
        << adopted.status().message();
  }
}

TEST_F(AdoptTest, ADescriptorThatIsNoneIsAnError) {
  const Result<PGconn*> adopted = AdoptConnection(UniqueFd(), 1, kParameters, kLimit);
  ASSERT_FALSE(adopted.ok());
  EXPECT_EQ(adopted.status().sqlstate(), "XX000");
  EXPECT_NE(adopted.status().message().find("Bad file descriptor"), std::string::npos);
}

TEST_F(AdoptTest, AValueTooLongForLibpqIsAnError) {
  const protocol::Parameters broken = {{"search_path", std::string(40'000, 's')}};
  const Result<PGconn*> adopted = AdoptConnection(datanode_.Lend(), 1, broken, kLimit);
  ASSERT_FALSE(adopted.ok());
  EXPECT_EQ(adopted.status().sqlstate(), "XX000");
  EXPECT_NE(adopted.status().message().back(), '\n');
}

}  // namespace
}  // namespace polarx
