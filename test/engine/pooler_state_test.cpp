// What the pooler tells about itself and takes from outside while it runs: its sessions, what it
// was asked for, new settings, connections that survive from earlier workers; with the whole engine
// in one process.
#include "pooler_fixture.h"

namespace polarx {
namespace {

TEST_F(PoolerTest, SessionsAreShownWithTheirLeasesAndWhatTheyWaitFor) {
  settings_.max_pool_size = 1;
  Start();
  PoolerClient holder = Attach(), waiter = Attach();
  const Lease lease = Acquire(&holder);
  Ask(&waiter, 7, 10000);
  // The one with so many leases.
  const auto row = [&](const std::string& leases) {
    EXPECT_TRUE(holder.Send(protocol::Show{9, protocol::View::kSessions}).ok());
    std::optional<ClientReply> reply = Reply(&holder);
    for (const protocol::Row& one : std::get<protocol::Rows>(reply.value().reply).rows) {
      if (one.at(2) == leases) {
        return one;
      }
    }
    return protocol::Row(6);
  };
  ASSERT_TRUE(TurnUntil([&] { return row("0")[3] == "dn1"; }));
  const protocol::Row first = row("1"), second = row("0");
  EXPECT_EQ(first[0], std::to_string(getpid()));
  EXPECT_EQ(first[1], "tester");
  EXPECT_FALSE(first[3].has_value());
  EXPECT_FALSE(first[4].has_value());
  EXPECT_TRUE(first[5].has_value());
  EXPECT_EQ(second[0], std::to_string(getpid()));
  EXPECT_TRUE(second[4].has_value());
  Release(&holder, lease);
  std::optional<ClientReply> reply = Reply(&waiter);
  EXPECT_TRUE(reply && std::holds_alternative<protocol::Granted>(reply->reply));
}

TEST_F(PoolerTest, ConnectionsThatSurviveFromEarlierWorkersCountForTheLimit) {
  settings_.max_pool_size = 2;
  Start();
  PoolerClient client = Attach();
  pooler_->SetSurvivors({{kNode, 2}});
  Ask(&client, 1);
  std::optional<ClientReply> reply = Reply(&client);
  ASSERT_TRUE(reply && std::holds_alternative<protocol::Failed>(reply->reply));
  EXPECT_EQ(std::get<protocol::Failed>(reply->reply).status.sqlstate(), sqlstate::kPoolFull);
  pooler_->SetSurvivors({{kNode, 1}});
  Release(&client, Acquire(&client, 2));
}

TEST_F(PoolerTest, NewSettingsHoldFromTheNextRequestOn) {
  settings_.max_pool_size = 1;
  Start();
  PoolerClient first = Attach(), second = Attach();
  const Lease lease = Acquire(&first);
  Ask(&second, 1);
  std::optional<ClientReply> reply = Reply(&second);
  ASSERT_TRUE(reply && std::holds_alternative<protocol::Failed>(reply->reply));
  settings_.max_pool_size = 2;
  pooler_->Apply(settings_, Now());
  Release(&second, Acquire(&second, 2));
  Release(&first, lease);
}

TEST_F(PoolerTest, AReloadIsHandedOutAndAnswered) {
  Start();
  PoolerClient client = Attach();
  ASSERT_TRUE(client.Send(protocol::Reload{3}).ok());
  std::optional<ClientReply> reply = Reply(&client);
  ASSERT_TRUE(reply && std::holds_alternative<protocol::Done>(reply->reply));
  EXPECT_EQ(std::get<protocol::Done>(reply->reply).request, 3u);
}

TEST_F(PoolerTest, TellsWhatItWasAskedForAndWhatItHolds) {
  Start();
  EXPECT_TRUE(pooler_->KnownMappings(Now()).empty());
  const int before = pooler_->fds_used();
  PoolerClient client = Attach();
  const Lease lease = Acquire(&client);
  ASSERT_EQ(pooler_->KnownMappings(Now()).size(), 1u);
  EXPECT_EQ(pooler_->KnownMappings(Now())[0].node, kNode);
  EXPECT_EQ(pooler_->KnownMappings(Now())[0].role, kRole);
  EXPECT_GE(pooler_->fds_used(), before + 2) << "a session and a connection";
  EXPECT_LE(pooler_->NextDeadline() - Now(), settings_.pool_maintenance_timeout);
  Release(&client, lease);
}

}  // namespace
}  // namespace polarx
