// What goes out to sessions when it cannot all go at once: long views, too many descriptors under
// way; and what is ordered of the worker threads meanwhile; with the whole engine in one process.

#include "pooler_fixture.h"
#include "too_many_fds.h"

namespace polarx {
namespace {

class PoolerFlowTest : public PoolerTest {
 protected:
  // As pooler.h says: one reading of the clock a turn.
  void TurnAt(TimePoint now) {
    pooler_->Receive(now);
    pooler_->Serve(now);
  }
  // Nothing happens, and nothing is due at once.
  bool IsQuiet() {
    pollfd wait{pooler_->fd(), POLLIN, 0};
    return poll(&wait, 1, 0) == 0 && pooler_->NextDeadline() > Now();
  }
  std::string IdleConnections(PoolerClient* client) {
    return View(client, protocol::View::kPools, 0, 5);
  }
};

TEST_F(PoolerFlowTest, AGrantThatCannotGoOutWaitsWithoutATurnOfTheLoop) {
  Start();
  PoolerClient client = Attach(), other = Attach();
  Release(&other, Acquire(&other));
  ASSERT_TRUE(TurnUntil([&] { return IdleConnections(&other) == "1"; }));
  std::optional<ClientReply> reply;
  {
    const TooManyFds too_many;
    Ask(&client, 8);
    ASSERT_TRUE(TurnUntil([&] { return IdleConnections(&other) == "0"; }));
    int quiet = 0;
    for (int turn = 0; turn < 20; ++turn) {
      quiet += IsQuiet() ? 1 : 0;
      Turn();
    }
    EXPECT_GE(quiet, 15);
    EXPECT_FALSE(client.Receive().value().has_value());
  }
  reply = Reply(&client);
  ASSERT_TRUE(reply && std::holds_alternative<protocol::Granted>(reply->reply));
  EXPECT_EQ(reply->fds.size(), 1u);
}

TEST_F(PoolerFlowTest, AWithdrawTakesBackWhatHasNotGoneOutAndNothingElse) {
  Start();
  PoolerClient client = Attach(), other = Attach();
  const Lease kept = Acquire(&client);
  {
    const TooManyFds too_many;
    Ask(&client, 8);
    ASSERT_TRUE(TurnUntil([&] { return View(&other, protocol::View::kPools, 0, 6) == "2"; }));
    ASSERT_TRUE(client.Send(protocol::Withdraw{8}).ok());
    const std::optional<ClientReply> reply = Reply(&client);
    ASSERT_TRUE(reply && std::holds_alternative<protocol::Failed>(reply->reply));
    EXPECT_EQ(std::get<protocol::Failed>(reply->reply).request, 8u);
    EXPECT_EQ(std::get<protocol::Failed>(reply->reply).status.sqlstate(), "57014");
  }
  EXPECT_EQ(IdleConnections(&other), "1") << "it has not been closed, nor reset";
  EXPECT_EQ(datanode_.counts().statements.size(), 0u);
  PGresult* result = PQexec(kept.conn, "ECHO mine");
  EXPECT_STREQ(PQgetvalue(result, 0, 0), "mine");
  PQclear(result);
  // The parameter values that went with the grant are told with the next one.
  Release(&client, Acquire(&client, 9));
  Release(&client, kept);
}

TEST_F(PoolerFlowTest, WhatASessionThatEndsHasNotReceivedIsNotClosed) {
  Start();
  PoolerClient other = Attach();
  {
    PoolerClient client = Attach();
    const TooManyFds too_many;
    Ask(&client, 8);
    ASSERT_TRUE(TurnUntil([&] { return View(&other, protocol::View::kPools, 0, 6) == "1"; }));
    const PoolerClient gone = std::move(client);
  }
  ASSERT_TRUE(TurnUntil([&] { return IdleConnections(&other) == "1"; }));
  EXPECT_EQ(datanode_.counts().opened, 1);
  EXPECT_EQ(datanode_.counts().open, 1);
}

TEST_F(PoolerFlowTest, ALongViewIsMadeInPiecesWhileOthersAreServed) {
  constexpr int kNodes = 2200;
  Start();
  std::vector<NodeDefinition> nodes(kNodes);
  for (int i = 0; i < kNodes; ++i) {
    nodes[static_cast<std::size_t>(i)].id = kNode + static_cast<NodeId>(i);
    nodes[static_cast<std::size_t>(i)].name = "dn" + std::to_string(i);
  }
  pooler_->SetCatalog(nodes, {}, Now());
  PoolerClient client = Attach(), other = Attach();
  ASSERT_TRUE(client.Send(protocol::Show{9, protocol::View::kNodes}).ok());
  Turn();
  ASSERT_TRUE(other.Send(protocol::Show{5, protocol::View::kStats}).ok());
  const auto next = [](PoolerClient* of) {
    auto received = of->Receive();
    EXPECT_TRUE(received.ok());
    return std::move(received.value());
  };
  int turns = 1, stats_after = 0;
  std::optional<ClientReply> reply;
  while (!reply && turns < 100) {
    EXPECT_LE(pooler_->NextDeadline(), Now()) << "the next piece does not wait";
    Turn();
    ++turns;
    stats_after = stats_after == 0 && next(&other) ? turns : stats_after;
    reply = next(&client);
  }
  EXPECT_EQ(turns, 5) << "500 rows a turn";
  EXPECT_EQ(stats_after, 2) << "a short view does not wait for a long one";
  ASSERT_TRUE(reply);
  const auto& rows = std::get<protocol::Rows>(reply->reply);
  EXPECT_EQ(rows.request, 9u);
  ASSERT_EQ(rows.rows.size(), std::size_t{kNodes});
  EXPECT_EQ(rows.rows.front().at(0), "dn0");
  EXPECT_EQ(rows.rows.back().at(0), "dn2199");
}

// What is under way counts like what is not read: no session can pile up work.
TEST_F(PoolerFlowTest, ASessionThatAsksAndAsksIsSentAway) {
  settings_.max_pool_size = 1;
  Start();
  PoolerClient holder = Attach();
  const Lease lease = Acquire(&holder);  // no idle connection to ping on
  datanode_.SetBehaviour({.startup = FakeBehaviour::Startup::kSilent});
  for (const protocol::Request& request :
       {protocol::Request(protocol::Show{9, protocol::View::kNodes}),
        protocol::Request(protocol::Ping{9, kRole, {kNode}})}) {
    PoolerClient client = Attach();
    for (int i = 0; i < 1000; ++i) {
      client.Queue(request);
    }
    ASSERT_TRUE(client.Flush().ok());
    bool ended = false;
    EXPECT_TRUE(TurnUntil([&] {
      for (;;) {
        const auto reply = client.Receive();
        ended = ended || !reply.ok();
        if (!reply.ok() || !reply.value().has_value()) {
          return ended;
        }
      }
    })) << request.index();
  }
  EXPECT_EQ(View(&holder, protocol::View::kStats, 0, 0), "1") << "others are served";
  Release(&holder, lease);
}

// The alarm goes off between the reading of the clock and Receive.
TEST_F(PoolerFlowTest, AResetThatWaitsIsOrderedThoughTheTurnsTimeIsOld) {
  Start();
  PoolerClient client = Attach(), other = Attach();
  const Lease lease = Acquire(&client), second = Acquire(&other);
  Release(&other, second);  // with an idle one there is no hurry
  ASSERT_TRUE(TurnUntil([&] { return IdleConnections(&other) == "1"; }));
  const std::size_t before = datanode_.counts().statements.size();
  Release(&client, lease);
  TurnAt(Now());
  const TimePoint old = Now();
  const TimePoint alarm_is_over = old + milliseconds(2);
  while (Now() < alarm_is_over) {
  }
  TurnAt(old);
  const auto ordered = [&] { return datanode_.counts().statements.size() > before; };
  for (const TimePoint deadline = Now() + seconds(10); !ordered() && Now() < deadline;) {
    pollfd wait{pooler_->fd(), POLLIN, 0};
    if (poll(&wait, 1, 10) > 0) {  // nothing else begins a turn
      TurnAt(old);
    }
  }
  EXPECT_TRUE(ordered());
}

TEST_F(PoolerFlowTest, WhatIsHeldForASlotGoesWithIt) {
  Start();
  PoolerClient client = Attach();
  const int before = pooler_->fds_used();
  Release(&client, Acquire(&client));
  ASSERT_TRUE(TurnUntil([&] { return IdleConnections(&client) == "1"; }));
  EXPECT_EQ(pooler_->fds_used(), before + 1);
  ASSERT_TRUE(client.Send(protocol::Clean{7, 0, ""}).ok());
  ASSERT_TRUE(TurnUntil([&] { return pooler_->fds_used() == before; }));
  datanode_.SetBehaviour({.startup = FakeBehaviour::Startup::kRefuse});
  ASSERT_TRUE(std::holds_alternative<protocol::Done>(Reply(&client)->reply));
  Ask(&client, 2);
  const std::optional<ClientReply> refused = Reply(&client);
  ASSERT_TRUE(refused && std::holds_alternative<protocol::Failed>(refused->reply));
  EXPECT_EQ(pooler_->fds_used(), before);
}

}  // namespace
}  // namespace polarx
