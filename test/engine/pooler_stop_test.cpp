// The pooler ends whatever has become of memory: the process may be ending for want of it.
#include <gtest/gtest.h>

#include "fake/memory.h"
#include "pooler_fixture.h"

namespace polarx {
namespace {

class PoolerStopTest : public PoolerTest {
 protected:
  // With connections in several states, one of them lent.
  Lease StartAndLend(PoolerClient* client) {
    const Lease lent = Acquire(client);
    settings_.min_pool_size = 3;
    pooler_->Apply(settings_, Now());
    EXPECT_TRUE(TurnUntil([&] { return datanode_.counts().opened == 3; }));
    return lent;
  }
  void ExpectLentIsAlive(Lease lease) {
    PGresult* result = PQexec(lease.conn, "ECHO alive");
    EXPECT_EQ(PQresultStatus(result), PGRES_TUPLES_OK) << PQerrorMessage(lease.conn);
    PQclear(result);
    DetachConnection(lease.conn);
    PQfinish(lease.conn);
  }
};

TEST_F(PoolerStopTest, StopsWithoutMemoryAndLeavesLentConnectionsToTheirHolders) {
  Start();
  PoolerClient client = Attach();
  const Lease lease = StartAndLend(&client);
  bool joined = false;
  {
    const NoMemory no_memory;
    joined = pooler_->Stop();
  }
  EXPECT_TRUE(joined);
  EXPECT_TRUE(datanode_.WaitUntil([](const auto& counts) { return counts.open == 1; }));
  ExpectLentIsAlive(lease);
}

TEST_F(PoolerStopTest, IsDestroyedWithoutMemory) {
  Start();
  PoolerClient client = Attach();
  const Lease lease = StartAndLend(&client);
  // An order that has not gone out, an answer that has not been taken in.
  ASSERT_TRUE(client.Send(protocol::Ping{5, kRole, {kNode, kNode + 1}}).ok());
  Turn();
  {
    const NoMemory no_memory;
    pooler_.reset();
  }
  ExpectLentIsAlive(lease);
}

}  // namespace
}  // namespace polarx
