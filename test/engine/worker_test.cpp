// A worker thread and its connections against a scripted datanode.
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "raw_datanode.h"
#include "worker_fixture.h"

namespace polarx {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST_F(WorkerTest, OpensAConnectionAndTellsWhatTheDatanodeReported) {
  const Connected connected = Open(7);
  EXPECT_EQ(connected.slot, 7u);
  EXPECT_GE(connected.socket, 0);
  EXPECT_GE(connected.remote_pid, 1000);
  EXPECT_FALSE(connected.password_used);
  const auto zone = std::find_if(connected.parameters.begin(), connected.parameters.end(),
                                 [](const auto& entry) { return entry.first == "TimeZone"; });
  ASSERT_NE(zone, connected.parameters.end());
  EXPECT_EQ(zone->second, "Europe/Berlin");
}

TEST_F(WorkerTest, TellsWhetherThePasswordWasUsed) {
  datanode_.SetBehaviour({.startup = FakeBehaviour::Startup::kAskPassword});
  EXPECT_TRUE(Open(1).password_used);
}

TEST_F(WorkerTest, AWrongPasswordKeepsItsSqlstate) {
  datanode_.SetBehaviour({.startup = FakeBehaviour::Startup::kAskPassword, .password = "another"});
  Connect(1);
  EXPECT_EQ(Next<ConnectFailed>().status.sqlstate(), "28P01");
}

TEST_F(WorkerTest, ASilentDatanodeEndsAtTheDeadlineAndHoldsNobodyUp) {
  datanode_.SetBehaviour({.startup = FakeBehaviour::Startup::kSilent});
  Connect(1, seconds(1));
  ASSERT_TRUE(datanode_.WaitUntil([](const auto& counts) { return counts.open == 1; }));
  FakeDatanode other;
  Send(ConnectOrder{.slot = 2,
                    .node_name = "dn2",
                    .options = {{"dbname", "d"},
                                {"gssencmode", "disable"},
                                {"host", "127.0.0.1"},
                                {"port", std::to_string(other.port())},
                                {"sslmode", "disable"},
                                {"user", "u"}},
                    .deadline = Now() + seconds(10),
                    .timeout = seconds(10)});
  EXPECT_EQ(Next<Connected>().slot, 2u);
  const ConnectFailed failed = Next<ConnectFailed>();
  EXPECT_EQ(failed.status.sqlstate(), "08001");
  EXPECT_NE(failed.status.message().find("pooler.pooler_connect_timeout (1 s)"), std::string::npos);
  EXPECT_EQ(failed.reach, ConnectReach::kNothing);
}

TEST_F(WorkerTest, TellsHowFarAFailedConnectCame) {
  datanode_.SetBehaviour({.startup = FakeBehaviour::Startup::kHangUp});
  Connect(1);
  EXPECT_EQ(Next<ConnectFailed>().reach, ConnectReach::kNothing);
  datanode_.SetBehaviour({.startup = FakeBehaviour::Startup::kRefuse});
  Connect(2);
  EXPECT_EQ(Next<ConnectFailed>().reach, ConnectReach::kServer);
}

TEST_F(WorkerTest, ADatanodeWhoseAuthenticationHangsHasAnswered) {
  RawDatanode datanode([](RawDatanode::Peer& peer, int) {
    peer.ReadStartup();
    peer.Send(AuthenticationMessage(3));
    peer.ReadOn();
  });
  ConnectTo(1, datanode.port(), seconds(1));
  const ConnectFailed failed = Next<ConnectFailed>();
  EXPECT_EQ(failed.status.sqlstate(), "08001") << failed.status.message();
  EXPECT_EQ(failed.reach, ConnectReach::kServer);
}

std::atomic<bool> release_lookup;

TEST_F(WorkerTest, ASlowNameLookupHoldsNothingUp) {
  release_lookup = false;
  SetLookupForTest([](const std::string&) {
    while (!release_lookup) {
      std::this_thread::yield();
    }
    return LookupResult{"127.0.0.1", ""};
  });
  Connect(1, seconds(10), "slow.example");
  EXPECT_EQ(Open(2).slot, 2u);
  release_lookup = true;
  EXPECT_EQ(Next<Connected>().slot, 1u);
}

TEST_F(WorkerTest, ALookupThatNeverEndsFailsAtTheDeadline) {
  release_lookup = false;
  SetLookupForTest([](const std::string&) {
    while (!release_lookup) {
      std::this_thread::yield();
    }
    return LookupResult{"127.0.0.1", ""};
  });
  Connect(1, milliseconds(50), "stuck.example");
  EXPECT_NE(Next<ConnectFailed>().status.message().find("host name was looked up"),
            std::string::npos);
  release_lookup = true;
}

TEST_F(WorkerTest, TriesEveryAddressOfAName) {
  SetLookupForTest([](const std::string&) { return LookupResult{"::1,127.0.0.1", ""}; });
  Connect(1, seconds(10), "two.example");
  EXPECT_EQ(Next<Connected>().slot, 1u);
}

TEST_F(WorkerTest, AnUnknownNameIsToldAsSuch) {
  SetLookupForTest([](const std::string&) { return LookupResult{"", "no such host"}; });
  Connect(1, seconds(10), "none.example");
  EXPECT_NE(Next<ConnectFailed>().status.message().find(
                "could not translate host name \"none.example\" to address: no such host"),
            std::string::npos);
}

TEST_F(WorkerTest, RunsStatementsOneAfterTheOther) {
  Open(1);
  Run(1, {"ROLLBACK", "DISCARD ALL"});
  EXPECT_TRUE(Next<RunDone>().status.ok());
  EXPECT_EQ(datanode_.counts().statements, (std::vector<std::string>{"ROLLBACK", "DISCARD ALL"}));
}

TEST_F(WorkerTest, AFailedStatementIsToldWithItsSqlstate) {
  Open(1);
  Run(1, {"FAIL 22012 division by zero"});
  const RunDone done = Next<RunDone>();
  EXPECT_EQ(done.status.sqlstate(), "22012");
}

TEST_F(WorkerTest, OnlyAnAnswerToTheStatementIsASuccess) {
  struct Case {
    std::vector<std::string> statements;
    bool ok;
  };
  const Case cases[] = {
      {{"DISCARD ALL"}, true},
      {{""}, true},
      {{" ; "}, true},
      {{"NOTHING"}, false},
      {{"EMPTY"}, false},
      {{"DISCARD ALL", "NOTHING"}, false},
      {{"NOTHING", "DISCARD ALL"}, false},
      {{"ECHO a row"}, true},
  };
  SlotId slot = 0;
  for (const Case& c : cases) {
    Open(++slot);
    Run(slot, c.statements);
    const RunDone done = Next<RunDone>();
    EXPECT_EQ(done.status.sqlstate(), c.ok ? "" : sqlstate::kConnectionLost) << c.statements[0];
  }
}

TEST_F(WorkerTest, AnSqlstateThatIsNoneIsNotHandedOn) {
  Open(1);
  Run(1, {"FAIL ab de some message"});
  const RunDone done = Next<RunDone>();
  EXPECT_EQ(done.status.sqlstate(), "08006");
  EXPECT_NE(done.status.message().find("some message"), std::string::npos);
}

TEST_F(WorkerTest, ATransactionLeftOpenIsAFailure) {
  Open(1);
  Run(1, {"BEGIN"});
  EXPECT_FALSE(Next<RunDone>().status.ok());
}

TEST_F(WorkerTest, AnAnswerThatDoesNotComeEndsAtTheDeadline) {
  Open(1);
  datanode_.SetBehaviour({.answer = FakeBehaviour::Answer::kSilent});
  Run(1, {"DISCARD ALL"}, milliseconds(50));
  EXPECT_NE(Next<RunDone>().status.message().find("pooler.pooler_dn_set_timeout"),
            std::string::npos);
}

TEST_F(WorkerTest, AHangUpDuringAResetIsAFailure) {
  Open(1);
  datanode_.SetBehaviour({.answer = FakeBehaviour::Answer::kHangUp});
  Run(1, {"DISCARD ALL"});
  EXPECT_EQ(Next<RunDone>().status.sqlstate(), sqlstate::kConnectionLost);
  Send(CloseOrder{.slot = 1, .cancel = false, .deadline = Now() + seconds(10)});
  EXPECT_FALSE(Next<Closed>().timed_out);
}

TEST_F(WorkerTest, AnIdleConnectionThatTheDatanodeClosesIsReportedOnce) {
  Open(1);
  datanode_.HangUp();
  EXPECT_EQ(Next<HungUp>().slot, 1u);
  Send(CloseOrder{.slot = 1, .cancel = false, .deadline = Now() + seconds(10)});
  EXPECT_EQ(Next<Closed>().slot, 1u);
}

TEST_F(WorkerTest, ClosesWithAGoodbyeAndWaitsForTheEndOfFile) {
  Open(1);
  Send(CloseOrder{.slot = 1, .cancel = false, .deadline = Now() + seconds(10)});
  EXPECT_FALSE(Next<Closed>().timed_out);
  ASSERT_TRUE(datanode_.WaitUntil([](const auto& counts) { return counts.open == 0; }));
  EXPECT_EQ(datanode_.counts().terminated, 1);
}

TEST_F(WorkerTest, ACancelIsThroughBeforeTheResetBegins) {
  std::atomic<int> cancels = 0;
  std::atomic<int> statements = 0;
  std::atomic<bool> release = false;
  RawDatanode datanode([&](RawDatanode::Peer& peer, int index) {
    peer.ReadStartup();  // a cancel request is laid out like that
    if (index == 1) {
      ++cancels;
      while (!release) {
        std::this_thread::sleep_for(milliseconds(1));
      }
      return;
    }
    peer.Send(Greeting());
    char type;
    std::string body;
    while (peer.ReadMessage(&type, &body) && type == 'Q') {
      ++statements;
      peer.Send(CompleteMessage("DISCARD ALL") + ReadyMessage());
    }
  });
  ConnectTo(1, datanode.port());
  Next<Connected>();
  Send(CancelOrder{1, Now() + seconds(10)});
  Run(1, {"DISCARD ALL"});
  Open(2);  // by then the orders have been taken up
  EXPECT_EQ(statements, 0);
  release = true;
  (void)Next<CancelThrough>();
  EXPECT_TRUE(Next<RunDone>().status.ok());
  EXPECT_EQ(cancels, 1);
  EXPECT_EQ(statements, 1);
}

TEST_F(WorkerTest, ACancelThatIsThroughIsReportedOnceForAllUnderWay) {
  (void)Open(1);
  Send(CancelOrder{.slot = 1, .deadline = Now() + seconds(10), .lease = 5, .number = 1});
  Send(CancelOrder{.slot = 1, .deadline = Now() + seconds(10), .lease = 5, .number = 2});
  CancelThrough through = Next<CancelThrough>();
  if (through.number == 1) {
    through = Next<CancelThrough>();  // the first was through before the second was ordered
  }
  EXPECT_EQ(through.lease, 5u);
  EXPECT_EQ(through.number, 2u);
  EXPECT_EQ(datanode_.counts().cancels, 2);
}

TEST_F(WorkerTest, AsksForValuesThatItsOwnCopyMayBeWrongAbout) {
  Open(1);
  Run(1, {"DISCARD ALL"}, seconds(10), {"TimeZone"});
  EXPECT_TRUE(Next<RunDone>().status.ok());
  EXPECT_EQ(datanode_.counts().statements.back(), "SELECT pg_catalog.current_setting('TimeZone')");
}

TEST_F(WorkerTest, TellsTheDatanodesValueInsteadOfItsCopy) {
  const auto zone = [](const RunDone& done) {
    for (const auto& [name, value] : done.parameters.value_or(protocol::Parameters{})) {
      if (name == "TimeZone") {
        return value;
      }
    }
    return std::string("not told");
  };
  Open(1);
  datanode_.SetBehaviour(
      {.rows = {{"SELECT pg_catalog.current_setting('TimeZone')", "Asia/Tokyo"}}});
  Run(1, {"DISCARD ALL"}, seconds(10), {"TimeZone"});
  EXPECT_EQ(zone(Next<RunDone>()), "Asia/Tokyo");
  Run(1, {"DISCARD ALL"});
  EXPECT_EQ(zone(Next<RunDone>()), "not told") << "nothing has changed";
  Run(1, {"SET TimeZone = Asia/Tokyo"});
  EXPECT_EQ(zone(Next<RunDone>()), "not told") << "now the copy is right, too";
  Run(1, {"SET TimeZone = UTC"});
  EXPECT_EQ(zone(Next<RunDone>()), "UTC");
}

// --- what the last holder has sent --------------------------------------------------------------

TEST_F(WorkerTest, ReadsTheAnswerToAResetThatItsHolderHasSent) {
  RunSent(Open(1), "DISCARD ALL");
  EXPECT_TRUE(Next<RunDone>().status.ok());
  EXPECT_EQ(datanode_.counts().statements, std::vector<std::string>{"DISCARD ALL"});
  Run(1, {"ECHO in step"}, seconds(10), {}, "ECHO 4711");
  EXPECT_EQ(Next<RunDone>().value, "4711");
}

TEST_F(WorkerTest, MeasuresBehindAResetThatItsHolderHasSent) {
  RunSent(Open(1), "DISCARD ALL", seconds(10), "ECHO 4711");
  const RunDone done = Next<RunDone>();
  EXPECT_TRUE(done.status.ok());
  EXPECT_EQ(done.value, "4711");
}

TEST_F(WorkerTest, TellsValuesThatAreReportedBesideAResetThatItsHolderHasSent) {
  RunSent(Open(1), "SET TimeZone = Asia/Tokyo");
  const RunDone done = Next<RunDone>();
  EXPECT_TRUE(done.status.ok());
  ASSERT_TRUE(done.parameters.has_value());
  EXPECT_NE(std::find(done.parameters->begin(), done.parameters->end(),
                      std::make_pair(std::string("TimeZone"), std::string("Asia/Tokyo"))),
            done.parameters->end());
}

TEST_F(WorkerTest, AResetOfItsHoldersThatFailsIsAFailure) {
  RunSent(Open(1), "FAIL 57014 canceling statement");
  const RunDone done = Next<RunDone>();
  EXPECT_EQ(done.status.sqlstate(), sqlstate::kConnectionLost);
  EXPECT_EQ(done.status.message(), "canceling statement");
}

TEST_F(WorkerTest, AnAnswerToItsHolderThatDoesNotComeEndsAtTheDeadline) {
  const Connected connected = Open(1);
  datanode_.SetBehaviour({.answer = FakeBehaviour::Answer::kSilent});
  RunSent(connected, "DISCARD ALL", milliseconds(50));
  const RunDone done = Next<RunDone>();
  EXPECT_TRUE(done.timed_out);
  EXPECT_NE(done.status.message().find("pooler.pooler_dn_set_timeout"), std::string::npos);
}

TEST_F(WorkerTest, AHangUpInPlaceOfTheAnswerToItsHolderIsAFailure) {
  const Connected connected = Open(1);
  datanode_.SetBehaviour({.answer = FakeBehaviour::Answer::kSilent});
  RunSent(connected, "DISCARD ALL");
  Open(2);  // by then the order has been taken up
  ASSERT_EQ(::shutdown(connected.socket, SHUT_RD), 0);
  EXPECT_EQ(Next<RunDone>().status.message(), "datanode closed the connection");
  Send(CloseOrder{.slot = 1, .cancel = false, .deadline = Now() + seconds(10)});
  EXPECT_FALSE(Next<Closed>().timed_out);
}

TEST_F(WorkerTest, ACopyThatBeginsIsAFailure) {
  Open(1);
  Run(1, {"COPY"});
  const RunDone done = Next<RunDone>();
  EXPECT_EQ(done.status.sqlstate(), sqlstate::kConnectionLost);
  EXPECT_EQ(done.status.message(), "a statement of the pooler started a COPY");
}

TEST_F(WorkerTest, NotificationsAreDropped) {
  Open(1);
  datanode_.SendToAll(
      std::string("A\0\0\0\x0c\0\0\0\x01"
                  "a\0b\0",
                  13));
  Run(1, {"DISCARD ALL"});
  EXPECT_TRUE(Next<RunDone>().status.ok());
  Run(1, {"DISCARD ALL"});
  EXPECT_TRUE(Next<RunDone>().status.ok());
}

TEST_F(WorkerTest, LooksNamesUpInTheSystem) {
  Connect(1, seconds(10), "localhost");
  EXPECT_GT(Next<Connected>().remote_pid, 0);
}

TEST_F(WorkerTest, AMeasureBringsItsValueAndMayFail) {
  Open(1);
  Run(1, {"DISCARD ALL"}, seconds(10), {}, "ECHO 4711");
  RunDone done = Next<RunDone>();
  EXPECT_TRUE(done.status.ok());
  EXPECT_EQ(done.value, "4711");
  Run(1, {"DISCARD ALL"}, seconds(10), {"TimeZone"}, "FAIL 42501 permission denied");
  done = Next<RunDone>();
  EXPECT_TRUE(done.status.ok()) << done.status.message();
  EXPECT_FALSE(done.value.has_value());
  Run(1, {"FAIL 22012 division by zero"}, seconds(10), {}, "ECHO 4711");
  done = Next<RunDone>();
  EXPECT_EQ(done.status.sqlstate(), "22012");
  EXPECT_FALSE(done.value.has_value());
}

TEST_F(WorkerTest, AStopWaitsForTheDatanodesEndOfFile) {
  Open(1);
  Open(2);
  worker_.reset();
  EXPECT_EQ(datanode_.counts().open, 0);
  EXPECT_EQ(datanode_.counts().terminated, 2);
}

TEST_F(WorkerTest, StopsAtOnceWhileAConnectIsUnderWay) {
  datanode_.SetBehaviour({.startup = FakeBehaviour::Startup::kSilent});
  Connect(1, seconds(3600));
  ASSERT_TRUE(datanode_.WaitUntil([](const auto& counts) { return counts.open == 1; }));
  const TimePoint begin = Now();
  worker_.reset();
  EXPECT_LT(Now() - begin, seconds(1));
}

TEST_F(WorkerTest, LeavesLentConnectionsToTheirHoldersWhenItStops) {
  const Connected connected = Open(1);
  const int copy = dup(connected.socket);
  const SlotId lent[] = {1};
  worker_->Stop(lent);
  worker_.reset();
  const char query[] = "Q\0\0\0\017ECHO hello\0";
  ASSERT_EQ(write(copy, query, 16), 16);
  EXPECT_TRUE(datanode_.WaitUntil([](const auto& counts) { return !counts.statements.empty(); }));
  EXPECT_EQ(datanode_.counts().terminated, 0);
  close(copy);
}

}  // namespace
}  // namespace polarx
