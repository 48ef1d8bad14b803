// A worker thread and datanodes that mean harm, or are broken: its other connections go on, its
// memory is bounded, and nothing but a whole answer is taken for one.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <atomic>
#include <fstream>
#include <thread>

#include "raw_datanode.h"
#include "worker_fixture.h"

namespace polarx {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Peer = RawDatanode::Peer;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif
#else
constexpr bool kSanitized = false;
#endif

long ResidentMegabytes() {
  std::ifstream statm("/proc/self/statm");
  long size = 0;
  long resident = 0;
  statm >> size >> resident;
  return resident * 4 / 1024;
}

class HostileDatanodeTest : public WorkerTest {
 protected:
  // Connects to a healthy datanode on the same thread.
  void OthersGoOn(SlotId slot) {
    const TimePoint begin = Now();
    Connect(slot);
    const Connected connected = Next<Connected>();
    EXPECT_EQ(connected.slot, slot);
    EXPECT_LT(Now() - begin, seconds(5)) << "the thread was held up";
  }
  // Closes the connection, whether or not it has been hung up on.
  void End(SlotId slot, Duration limit = seconds(10)) {
    Send(CloseOrder{.slot = slot, .cancel = false, .deadline = Now() + limit});
    Completion completion = NextCompletion();
    while (std::holds_alternative<HungUp>(completion)) {
      completion = NextCompletion();
    }
    EXPECT_TRUE(std::holds_alternative<Closed>(completion)) << completion.index();
  }
  void RunReset(bool sent, const Connected& connected, Duration limit = seconds(10)) {
    if (sent) {
      RunSent(connected, "DISCARD ALL", limit);
    } else {
      Run(connected.slot, {"DISCARD ALL"}, limit);
    }
  }
};

// --- expensive logins
// -----------------------------------------------------------------------------

// Demands so many iterations that hashing them takes a minute.
enum class Scram { kWhole, kInTwoSegments, kLong, kBehindAnother };

void DemandIterations(Peer& peer, Scram how) {
  peer.ReadStartup();
  peer.Send(AuthenticationMessage(10, std::string("SCRAM-SHA-256\0\0", 15)));
  char type;
  std::string body;
  if (!peer.ReadMessage(&type, &body)) {
    return;
  }
  const std::string nonce = body.substr(body.find("r=") + 2);
  const std::string challenge =
      AuthenticationMessage(11, "r=" + nonce + std::string(how == Scram::kLong ? 1100 : 6, 'x') +
                                    ",s=c2FsdHNhbHQ=,i=60000000");
  switch (how) {
    case Scram::kInTwoSegments:
      peer.Send(challenge.substr(0, 20));
      std::this_thread::sleep_for(milliseconds(50));
      peer.Send(challenge.substr(20));
      break;
    case Scram::kBehindAnother:
      peer.Send(AuthenticationMessage(3) + challenge);
      break;
    case Scram::kWhole:
    case Scram::kLong:
      peer.Send(challenge);
      break;
  }
  peer.ReadOn();
}

TEST_F(HostileDatanodeTest, NoLoginHoldsTheThreadUp) {
  SlotId slot = 1;
  for (const Scram how :
       {Scram::kWhole, Scram::kInTwoSegments, Scram::kLong, Scram::kBehindAnother}) {
    RawDatanode hostile([how](Peer& peer, int) { DemandIterations(peer, how); });
    ConnectTo(slot, hostile.port());
    const TimePoint begin = Now();
    const ConnectFailed failed = Next<ConnectFailed>();
    EXPECT_LT(Now() - begin, seconds(5)) << static_cast<int>(how);
    EXPECT_EQ(failed.status.sqlstate(), "28000") << failed.status.message();
    EXPECT_EQ(failed.reach, ConnectReach::kServer);
    OthersGoOn(slot + 1);
    slot += 2;
  }
}

TEST_F(HostileDatanodeTest, AStartupInAnyPiecesIsOne) {
  SlotId slot = 0;
  const std::string greeting = Greeting();
  for (const std::size_t step : {greeting.size(), std::size_t{7}, std::size_t{1}}) {
    RawDatanode datanode([&greeting, step](Peer& peer, int) {
      peer.ReadStartup();
      for (std::size_t at = 0; at < greeting.size(); at += step) {
        peer.Send(greeting.substr(at, step));
        std::this_thread::sleep_for(milliseconds(1));
      }
      peer.ReadOn();
    });
    ConnectTo(++slot, datanode.port());
    const Connected connected = Next<Connected>();
    EXPECT_EQ(connected.remote_pid, 4242);
    EXPECT_EQ(connected.parameters.size(), 3u);
    End(slot);
  }
}

TEST_F(HostileDatanodeTest, AnEndlessStartupIsGivenUp) {
  RawDatanode hostile([](Peer& peer, int) {
    peer.ReadStartup();
    std::string chunk = AuthenticationMessage(0);
    for (int i = 0; i < 2000; ++i) {
      chunk += ParameterMessage("p" + std::to_string(i), std::string(100, 'x'));
    }
    while (peer.Send(chunk)) {
      chunk.erase(0, chunk.front() == 'R' ? 9 : 0);
    }
  });
  const long before = ResidentMegabytes();
  ConnectTo(1, hostile.port());
  const ConnectFailed failed = Next<ConnectFailed>();
  EXPECT_NE(failed.status.message().find("it sent more than 1 MB before it was ready"),
            std::string::npos)
      << failed.status.message();
  EXPECT_LT(ResidentMegabytes() - before, 100);
  OthersGoOn(2);
}

// --- what is left behind an answer --------------------------------------------------------------

const std::string kDone = CompleteMessage("DISCARD ALL") + ReadyMessage();
const std::string kHalf = NoticeMessage().substr(0, 9);

TEST_F(HostileDatanodeTest, NothingMayBeLeftBehindTheStartup) {
  SlotId slot = 0;
  for (const std::string& rest : {kHalf, kDone, NoticeMessage(), std::string("N")}) {
    RawDatanode datanode([&rest](Peer& peer, int) {
      peer.ReadStartup();
      peer.Send(Greeting() + rest);
      peer.ReadOn();
    });
    ConnectTo(++slot, datanode.port());
    const ConnectFailed failed = Next<ConnectFailed>();
    EXPECT_EQ(failed.status.message(),
              "could not connect to datanode \"dn1\": it sent more than the answer to the startup");
    EXPECT_EQ(failed.status.sqlstate(), "08P01");
    EXPECT_EQ(failed.reach, ConnectReach::kServer);
  }
}

// Answers the first statement with these bytes, and all others as it should.
RawDatanode::Script AnswersFirst(const std::string& bytes) {
  return [bytes](Peer& peer, int) {
    peer.ReadStartup();
    peer.Send(Greeting());
    char type;
    std::string body;
    for (bool first = true; peer.ReadMessage(&type, &body) && type == 'Q'; first = false) {
      peer.Send(first ? bytes : kDone);
    }
  };
}

TEST_F(HostileDatanodeTest, NothingMayBeLeftBehindAnAnswer) {
  SlotId slot = 0;
  for (const bool sent : {false, true}) {
    for (const std::string& rest : {kDone, ReadyMessage()}) {
      RawDatanode datanode(AnswersFirst(kDone + rest));
      ConnectTo(++slot, datanode.port());
      RunReset(sent, Next<Connected>());
      const RunDone done = Next<RunDone>();
      EXPECT_EQ(done.status.sqlstate(), "08006");
      EXPECT_EQ(done.status.message(), "datanode sent more than the answer");
      End(slot);
    }
  }
}

TEST_F(HostileDatanodeTest, HalfAMessageBehindAnAnswerIsNotLent) {
  SlotId slot = 0;
  for (const bool sent : {false, true}) {
    RawDatanode datanode(AnswersFirst(kDone + kHalf));
    ConnectTo(++slot, datanode.port());
    RunReset(sent, Next<Connected>(), seconds(1));
    const RunDone done = Next<RunDone>();
    EXPECT_FALSE(done.status.ok());
    EXPECT_TRUE(done.timed_out);
    End(slot);
  }
}

// An answer that came before its statement is none, whatever the run is for.
TEST_F(HostileDatanodeTest, WhatCameBeforeAStatementIsNoAnswerToIt) {
  SlotId slot = 0;
  for (const RunKind kind : {RunKind::kReset, RunKind::kWarm, RunKind::kPing, RunKind::kMemory}) {
    std::atomic<bool> said = false;
    RawDatanode datanode([&said](Peer& peer, int) {
      peer.ReadStartup();
      peer.Send(Greeting());
      std::this_thread::sleep_for(milliseconds(20));
      peer.Send(kDone);
      said = true;
      peer.ReadOn();
    });
    ConnectTo(++slot, datanode.port());
    Completion opened = NextCompletion();
    if (std::holds_alternative<ConnectFailed>(opened)) {
      continue;  // it was too slow: the answer came along with the startup
    }
    while (!said) {
      std::this_thread::sleep_for(milliseconds(1));
    }
    RunOrder order{.slot = slot,
                   .kind = kind,
                   .statements = {"SELECT 1"},
                   .verify = {},
                   .measure = "",
                   .deadline = Now() + seconds(10),
                   .timeout = seconds(10)};
    if (kind == RunKind::kMemory) {
      order.measure = std::exchange(order.statements, {}).front();
    }
    Send(std::move(order));
    EXPECT_EQ(Next<RunDone>().status.message(), "datanode sent more than the answer");
    End(slot);
  }
}

TEST_F(HostileDatanodeTest, AProtocolErrorIsToldForWhatItIs) {
  SlotId slot = 0;
  const std::pair<std::string, std::string> cases[] = {
      {Message('x', "abc"), "unexpected answer"},
      {std::string("C\177\377\377\377", 5), "datanode sent a malformed answer"},
      {std::string("C\0\0\0\2", 5) + ReadyMessage(), "datanode sent a malformed answer"},
      {Message('G', std::string(3, '\0')), "a statement of the pooler started a COPY"},
      {ErrorMessage("57P01", "terminating connection due to administrator command"),
       "terminating connection due to administrator command"},
  };
  for (const bool sent : {false, true}) {
    for (const auto& [answer, why] : cases) {
      std::atomic<bool> ordered{false};
      RawDatanode datanode([&answer = answer, &ordered](Peer& peer, int) {
        peer.ReadStartup();
        peer.Send(Greeting());
        char type;
        std::string body;
        peer.ReadMessage(&type, &body);
        peer.Send(answer);
        // Its end before the order is that of an idle connection.
        while (!ordered) {
          std::this_thread::sleep_for(milliseconds(1));
        }
      });
      ConnectTo(++slot, datanode.port());
      RunReset(sent, Next<Connected>());
      ordered = true;
      const RunDone done = Next<RunDone>();
      EXPECT_EQ(done.status.message(), why);
      EXPECT_EQ(done.status.sqlstate(), "08006");
      End(slot);
    }
  }
}

// --- answers without an end ---------------------------------------------------------------------

TEST_F(HostileDatanodeTest, AnEndlessAnswerHoldsNothingUpAndIsGivenUp) {
  SlotId slot = 0;
  const std::string floods[] = {ParameterMessage("TimeZone", "UTC"), ParameterMessage("", ""),
                                NoticeMessage(), DataRow("x"), DataRow(std::string(64 << 20, 'x'))};
  for (const bool sent : {false, true}) {
    for (const std::string& message : floods) {
      std::string chunk;
      while (chunk.size() < 256 * 1024) {
        chunk += message;
      }
      RawDatanode hostile([&chunk](Peer& peer, int) {
        peer.ReadStartup();
        peer.Send(Greeting());
        char type;
        std::string body;
        if (peer.ReadMessage(&type, &body)) {
          while (peer.Send(chunk)) {
          }
        }
      });
      ConnectTo(++slot, hostile.port());
      const long before = ResidentMegabytes();
      RunReset(sent, Next<Connected>(), seconds(10));
      const RunDone done = Next<RunDone>();
      EXPECT_EQ(done.status.message(), "datanode sent more than 1 MB to the pooler");
      EXPECT_FALSE(done.timed_out);
      EXPECT_LT(ResidentMegabytes() - before, 100);
      End(slot, milliseconds(50));
      OthersGoOn(++slot);
    }
  }
}

TEST_F(HostileDatanodeTest, AnAnswerThatDribblesEndsAtTheDeadline) {
  RawDatanode hostile([](Peer& peer, int) {
    peer.ReadStartup();
    peer.Send(Greeting());
    char type;
    std::string body;
    peer.ReadMessage(&type, &body);
    while (peer.Send(NoticeMessage())) {
      std::this_thread::sleep_for(milliseconds(1));
    }
  });
  ConnectTo(1, hostile.port());
  RunReset(true, Next<Connected>(), seconds(1));
  OthersGoOn(2);
  const RunDone done = Next<RunDone>();
  EXPECT_TRUE(done.timed_out);
  EXPECT_NE(done.status.message().find("pooler.pooler_dn_set_timeout (1 s)"), std::string::npos);
}

// --- names --------------------------------------------------------------------------------------

std::atomic<int> lookups;
std::atomic<bool> let_dead_names_go;

TEST_F(HostileDatanodeTest, ASlowLookupServesAllWhoWaitForIt) {
  lookups = 0;
  let_dead_names_go = false;
  SetLookupForTest([](const std::string&) {
    ++lookups;
    while (!let_dead_names_go) {
      std::this_thread::sleep_for(milliseconds(1));
    }
    return LookupResult{"127.0.0.1", ""};
  });
  for (SlotId slot = 1; slot <= 8; ++slot) {
    Connect(slot, seconds(10), "dn.example");
  }
  OthersGoOn(9);  // by then all have asked
  let_dead_names_go = true;
  for (int i = 0; i < 8; ++i) {
    Next<Connected>();
  }
  EXPECT_EQ(lookups, 1);
}

TEST_F(HostileDatanodeTest, NamesThatHangLeaveOtherNamesAndCancelsAlone) {
  let_dead_names_go = false;
  SetLookupForTest([](const std::string& host) {
    while (host.starts_with("dead") && !let_dead_names_go) {
      std::this_thread::sleep_for(milliseconds(1));
    }
    return LookupResult{"127.0.0.1", ""};
  });
  HelperPool helpers(64, 2);  // as the pooler has them
  Wakeup wakeup;
  Channel<Completion> completions(&wakeup);
  auto worker = std::move(Worker::Start(1, &completions, &helpers).value());
  const auto connect = [&](SlotId slot, const std::string& host) {
    worker->Send(ConnectOrder{.slot = slot,
                              .node_name = host,
                              .options = OptionsFor(host),
                              .deadline = Now() + seconds(60),
                              .timeout = seconds(60)});
    worker->Flush();
  };
  const auto next = [&] {
    std::vector<Completion> arrived;
    completions.Await();
    pollfd wait{wakeup.fd(), POLLIN, 0};
    EXPECT_EQ(poll(&wait, 1, 10000), 1) << "no completion came";
    wakeup.Clear();
    completions.Receive(&arrived);
    return arrived.size() == 1 ? std::move(arrived.front()) : Completion(ThreadFailed{});
  };
  for (SlotId slot = 1; slot <= 64; ++slot) {
    connect(slot, "dead" + std::to_string((slot - 1) / 2));
  }
  connect(100, "good");
  const Completion connected = next();
  ASSERT_TRUE(std::holds_alternative<Connected>(connected));
  EXPECT_EQ(std::get<Connected>(connected).slot, 100u);
  worker->Send(CancelOrder{100, Now() + seconds(60)});
  worker->Flush();
  EXPECT_TRUE(datanode_.WaitUntil([](const auto& counts) { return counts.cancels == 1; }));
  let_dead_names_go = true;
  worker.reset();
  EXPECT_TRUE(helpers.Stop());
}

// --- memory -------------------------------------------------------------------------------------

TEST_F(HostileDatanodeTest, WithoutMemoryTheThreadEndsWithoutAWordOnItsConnections) {
  if (kSanitized) {
    GTEST_SKIP() << "the sanitizers need room of their own";
  }
  Open(1);  // lent to a session
  Open(2);
  rlimit old{};
  ASSERT_EQ(getrlimit(RLIMIT_AS, &old), 0);
  std::string statement(600u << 20, 'x');
  long pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  rlimit low = old;
  low.rlim_cur = static_cast<rlim_t>(pages) * 4096 + (100u << 20);
  ASSERT_EQ(setrlimit(RLIMIT_AS, &low), 0);
  std::vector<std::string> statements;
  statements.push_back(std::move(statement));
  Run(2, std::move(statements));
  const ThreadFailed failed = Next<ThreadFailed>();
  ASSERT_EQ(setrlimit(RLIMIT_AS, &old), 0);
  EXPECT_EQ(failed.why, "out of memory");
  worker_.reset();
  const auto counts = datanode_.counts();
  EXPECT_EQ(counts.terminated, 0);
  EXPECT_EQ(counts.open, 2);
}

}  // namespace
}  // namespace polarx
