// The fake datanode itself, seen by libpq: a fake that answers wrongly would prove nothing.
#include "fake/fake_datanode.h"

#include <gtest/gtest.h>
#include <libpq-fe.h>

#include <memory>
#include <string>

namespace polarx {
namespace {

struct Deleter {
  void operator()(PGconn* conn) const { PQfinish(conn); }
  void operator()(PGresult* result) const { PQclear(result); }
};
using Connection = std::unique_ptr<PGconn, Deleter>;
using QueryResult = std::unique_ptr<PGresult, Deleter>;
using Startup = FakeBehaviour::Startup;
using Counts = FakeDatanode::Counts;

Connection Connect(const FakeDatanode& datanode, const std::string& password = "secret") {
  const std::string options =
      "host=127.0.0.1 user=me dbname=db sslmode=disable gssencmode=disable "
      "port=" +
      std::to_string(datanode.port()) + " password=" + password;
  return Connection(PQconnectdb(options.c_str()));
}

QueryResult Execute(const Connection& conn, const char* sql) {
  return QueryResult(PQexec(conn.get(), sql));
}

std::string SqlstateOf(const QueryResult& result) {
  const char* sqlstate = PQresultErrorField(result.get(), PG_DIAG_SQLSTATE);
  return sqlstate != nullptr ? sqlstate : "";
}

TEST(FakeDatanodeTest, AcceptsAnswersAndCounts) {
  FakeDatanode datanode;
  {
    Connection conn = Connect(datanode);
    ASSERT_EQ(PQstatus(conn.get()), CONNECTION_OK) << PQerrorMessage(conn.get());
    EXPECT_FALSE(PQconnectionUsedPassword(conn.get()));
    EXPECT_STREQ(PQcmdStatus(Execute(conn, "DISCARD ALL").get()), "DISCARD ALL");
    EXPECT_STREQ(PQgetvalue(Execute(conn, "BEGIN; ECHO a; ECHO b").get(), 0, 0), "b");
    EXPECT_EQ(SqlstateOf(Execute(conn, "DISCARD ALL")), "25001");
    EXPECT_EQ(SqlstateOf(Execute(conn, "ECHO a")), "25P02");
    EXPECT_STREQ(PQcmdStatus(Execute(conn, "COMMIT").get()), "ROLLBACK");
    EXPECT_EQ(datanode.counts().open, 1);
  }
  EXPECT_TRUE(datanode.WaitUntil([](const Counts& counts) { return counts.open == 0; }));
  const Counts counts = datanode.counts();
  EXPECT_EQ(counts.opened, 1);
  EXPECT_EQ(counts.terminated, 1);
  EXPECT_EQ(counts.statements.size(), 7u);
  EXPECT_EQ(counts.last_startup.at(0), std::make_pair(std::string("user"), std::string("me")));
}

TEST(FakeDatanodeTest, AsksForThePassword) {
  FakeDatanode datanode({.startup = Startup::kAskPassword, .password = "right"});
  Connection good = Connect(datanode, "right");
  EXPECT_EQ(PQstatus(good.get()), CONNECTION_OK);
  EXPECT_TRUE(PQconnectionUsedPassword(good.get()));
  Connection bad = Connect(datanode, "wrong");
  EXPECT_EQ(PQstatus(bad.get()), CONNECTION_BAD);
  EXPECT_NE(std::string(PQerrorMessage(bad.get())).find("password"), std::string::npos);
}

TEST(FakeDatanodeTest, RefusesOrHangsUp) {
  FakeDatanode datanode({.startup = Startup::kRefuse, .message = "too many clients"});
  Connection refused = Connect(datanode);
  EXPECT_NE(std::string(PQerrorMessage(refused.get())).find("too many clients"), std::string::npos);
  datanode.SetBehaviour({.startup = Startup::kHangUp});
  Connection hung_up = Connect(datanode);
  EXPECT_EQ(PQstatus(hung_up.get()), CONNECTION_BAD);
}

TEST(FakeDatanodeTest, StaysSilentWhenTold) {
  FakeDatanode datanode({.startup = Startup::kSilent});
  Connection conn(
      PQconnectStart(("host=127.0.0.1 user=me sslmode=disable gssencmode=disable port=" +
                      std::to_string(datanode.port()))
                         .c_str()));
  PostgresPollingStatusType state = PGRES_POLLING_WRITING;
  for (int i = 0; i < 1000 && state == PGRES_POLLING_WRITING; ++i) {
    state = PQconnectPoll(conn.get());
  }
  EXPECT_TRUE(datanode.WaitUntil([](const Counts& counts) { return counts.opened == 1; }));
  EXPECT_EQ(PQconnectPoll(conn.get()), PGRES_POLLING_READING);
}

TEST(FakeDatanodeTest, ACancelEndsTheSleepOfItsConnectionOnly) {
  FakeDatanode datanode;
  Connection one = Connect(datanode);
  Connection two = Connect(datanode);
  ASSERT_EQ(PQsendQuery(one.get(), "SLEEP"), 1);
  ASSERT_EQ(PQsendQuery(two.get(), "SLEEP"), 1);
  ASSERT_TRUE(
      datanode.WaitUntil([](const Counts& counts) { return counts.statements.size() == 2; }));
  char error[256];
  PGcancel* cancel = PQgetCancel(one.get());
  EXPECT_EQ(PQcancel(cancel, error, sizeof(error)), 1) << error;
  PQfreeCancel(cancel);
  EXPECT_EQ(SqlstateOf(QueryResult(PQgetResult(one.get()))), "57014");
  EXPECT_EQ(QueryResult(PQgetResult(one.get())), nullptr);
  EXPECT_EQ(datanode.counts().cancels, 1);
  PQconsumeInput(two.get());
  EXPECT_EQ(PQisBusy(two.get()), 1);
}

TEST(FakeDatanodeTest, ACancelEndsAnExtendedQueryToo) {
  FakeDatanode datanode;
  Connection conn = Connect(datanode);
  ASSERT_EQ(PQsendQueryParams(conn.get(), "SLEEP", 0, nullptr, nullptr, nullptr, nullptr, 0), 1);
  ASSERT_TRUE(datanode.WaitUntil([](const Counts& counts) { return !counts.statements.empty(); }));
  char error[256];
  PGcancel* cancel = PQgetCancel(conn.get());
  EXPECT_EQ(PQcancel(cancel, error, sizeof(error)), 1) << error;
  PQfreeCancel(cancel);
  EXPECT_EQ(SqlstateOf(QueryResult(PQgetResult(conn.get()))), "57014");
  EXPECT_EQ(QueryResult(PQgetResult(conn.get())), nullptr);
  EXPECT_EQ(PQtransactionStatus(conn.get()), PQTRANS_IDLE);
}

TEST(FakeDatanodeTest, AnswersLate) {
  FakeDatanode datanode;
  Connection conn = Connect(datanode);
  datanode.SetBehaviour({.delay = std::chrono::milliseconds(50)});
  const TimePoint start = Now();
  EXPECT_STREQ(PQcmdStatus(Execute(conn, "SELECT 1").get()), "SELECT 1");
  EXPECT_GE(Now() - start, std::chrono::milliseconds(50));
}

TEST(FakeDatanodeTest, HangsUpOnAllAndListensOn) {
  FakeDatanode datanode;
  Connection one = Connect(datanode);
  Connection two = Connect(datanode);
  datanode.HangUp();
  EXPECT_TRUE(datanode.WaitUntil([](const Counts& counts) { return counts.open == 0; }));
  EXPECT_EQ(PQresultStatus(Execute(one, "SELECT 1").get()), PGRES_FATAL_ERROR);
  EXPECT_EQ(PQstatus(two.get()), CONNECTION_OK) << "has not looked yet";
  EXPECT_EQ(PQstatus(Connect(datanode).get()), CONNECTION_OK);
}

TEST(FakeDatanodeTest, SpeaksOfItsOwnAccord) {
  FakeDatanode datanode;
  Connection conn = Connect(datanode);
  datanode.SendToAll(FakeBackend::ParameterMessage("TimeZone", "UTC"));
  const TimePoint limit = Now() + std::chrono::seconds(10);
  while (std::string(PQparameterStatus(conn.get(), "TimeZone")) != "UTC" && Now() < limit) {
    PQconsumeInput(conn.get());
    PQnotifies(conn.get());
  }
  EXPECT_STREQ(PQparameterStatus(conn.get(), "TimeZone"), "UTC");
}

TEST(FakeDatanodeTest, ComesBackAtTheSamePort) {
  int port = 0;
  {
    FakeDatanode datanode;
    port = datanode.port();
    Connection conn = Connect(datanode);
  }
  FakeDatanode again({}, port);
  EXPECT_EQ(PQstatus(Connect(again).get()), CONNECTION_OK);
}

}  // namespace
}  // namespace polarx
