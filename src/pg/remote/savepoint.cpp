// What an error inside a savepoint has left under way comes to rest here, and the remote
// transaction goes back to the savepoint. In a backend, on its only thread.
#include <libpq-fe.h>

#include <algorithm>
#include <chrono>

#include "core/time.h"

#include "pg/base/guc.h"
#include "pg/remote/kept_leases.h"
#include "pg/remote/savepoint.h"
#include "pg/remote/stop.h"
#include "pg/prelude.h"

namespace polarx {
namespace {

// What runs elsewhere may come to its end: a cancel costs the datanode a connection.
constexpr int kMomentMs = 20;

bool IsConcerned(const PolarxLease* lease, int level) {
  return TransactionOwns(lease) && lease->remote.level >= level &&
         lease->remote.begin_level < level && !lease->connection.broken;
}

TimePoint InMilliseconds(int limit_ms) { return Now() + std::chrono::milliseconds(limit_ms); }

// Sends the command for the savepoint without awaiting it.
void Post(PolarxLease* lease, const char* verb) {
  char text[64];
  snprintf(text, sizeof(text), "%s SAVEPOINT s%d", verb, lease->remote.rollback_level);
  const char* command = text;
  LeasePost(lease, &command, 1);
}

// The lease rests, and nothing may strike: what follows waits for no answer.
void RollBackUnheard(PolarxLease* lease) {
  char rollback[64];
  char release[64];
  snprintf(rollback, sizeof(rollback), "ROLLBACK TO SAVEPOINT s%d", lease->remote.rollback_level);
  snprintf(release, sizeof(release), "RELEASE SAVEPOINT s%d", lease->remote.rollback_level);
  const char* commands[] = {rollback, release};
  LeasePost(lease, commands, 2);
  lease->remote.rollback_level = 0;
}

// Rolls back and hears whether it was done: somebody between here and the datanode may have kept a
// cancel back that the pooler has got rid of, so that it strikes the ROLLBACK.
Rest RollBackHeard(PolarxLease* lease, TimePoint deadline, bool interruptible) {
  for (;;) {
    bool struck = false;
    Rest rest = AwaitRest(lease, deadline, interruptible, true, nullptr);
    if (rest == Rest::kReached) {
      Post(lease, "ROLLBACK TO");
      rest = AwaitRest(lease, deadline, interruptible, false, &struck);
    }
    if (rest != Rest::kReached) {
      return rest;
    }
    if (PQtransactionStatus(lease->conn) == PQTRANS_INTRANS) {
      Post(lease, "RELEASE");
      lease->remote.rollback_level = 0;
      return Rest::kReached;
    }
    if (!struck) {
      LeaseBreak(lease);
      return Rest::kBroken;
    }
  }
}

void Conclude(PolarxLease* lease, Rest rest) {
  lease->remote.postponed = rest == Rest::kInterrupted;
  if (rest == Rest::kTimeout) {
    lease->remote.waited_ms = std::max(parameters.savepoint_timeout, 1);
    LeaseBreak(lease);
  }
}

}  // namespace

void SavepointRollBack(int level) noexcept {
  const TimePoint deadline = InMilliseconds(parameters.savepoint_timeout);
  const TimePoint moment = std::min(deadline, InMilliseconds(kMomentMs));
  for (PolarxLease* lease = ClientLeases(); lease != nullptr; lease = lease->next) {
    if (!IsConcerned(lease, level)) {
      continue;
    }
    lease->remote.rollback_level = level;
    if (lease->remote.postponed) {
      continue;  // else one cancel would not be enough for savepoints in savepoints
    }
    if (!lease->connection.cancelled &&
        (!lease->remote.busy ||
         AwaitRest(lease, moment, false, false, nullptr) == Rest::kReached)) {
      RollBackUnheard(lease);
    } else if (!lease->connection.broken && lease->remote.busy) {
      ClientCancel(lease);
    }
  }
  for (PolarxLease* lease = ClientLeases(); lease != nullptr; lease = lease->next) {
    if (IsConcerned(lease, level) && lease->remote.rollback_level != 0 &&
        !lease->remote.postponed) {
      Conclude(lease, RollBackHeard(lease, deadline, false));
    }
  }
}

void SavepointSettle(PolarxLease* lease) {
  const TimePoint deadline = InMilliseconds(parameters.savepoint_timeout);
  if (!lease->connection.broken) {
    if (lease->remote.busy && !lease->connection.cancelled) {
      ClientCancel(lease);
    }
    Conclude(lease, RollBackHeard(lease, deadline, true));
  }
  if (lease->connection.broken) {
    RaiseTransactionLost(lease);
  }
}

void RaiseTransactionLost(const PolarxLease* lease) {
  ereport(ERROR,
          (errcode(ERRCODE_CONNECTION_FAILURE),
           errmsg("transaction on datanode \"%s\" was lost", lease->node_name),
           lease->remote.waited_ms > 0
               ? errdetail("After an error inside a savepoint the datanode did not become usable "
                           "again within pooler.savepoint_timeout (%d ms).",
                           lease->remote.waited_ms)
               : errdetail("The connection was lost or closed earlier in this transaction."),
           errhint("Roll back the transaction and try again.")));
  pg_unreachable();
}

}  // namespace polarx
