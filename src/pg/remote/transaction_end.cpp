// The local transaction or a subtransaction ends, and the remote ones with it. In a backend, on its
// only thread; only what happens before a commit raises errors.
#include <libpq-fe.h>

#include <algorithm>

#include "pg/remote/commit.h"
#include "pg/remote/kept_leases.h"
#include "pg/remote/notices.h"
#include "pg/remote/savepoint.h"
#include "pg/remote/stop.h"
#include "pg/remote/transaction.h"
#include "pg/session/awaits.h"
#include "pg/prelude.h"

namespace polarx {
namespace {

bool ReachesLevel(const PolarxLease* lease, int level) {
  return TransactionOwns(lease) && lease->remote.level >= level;
}

void GiveBackAll() noexcept {
  ClientHangUpStranded(ReachesLevel, 0);
  ClientCork(ClientLeases() != nullptr && ClientLeases()->next != nullptr);
  PolarxLease* next;
  for (PolarxLease* lease = ClientLeases(); lease != nullptr; lease = next) {
    next = lease->next;
    if (TransactionOwns(lease)) {
      LeaseGiveBack(lease, TransactionKeeps(lease));
    }
  }
  ClientUncork();
}

// A subtransaction's READ ONLY ends with it, here and on the datanode.
void ForgetReadOnly(PolarxLease* lease, int level) noexcept {
  if (lease->remote.read_only_level >= level) {
    lease->remote.read_only_level = 0;
  }
}

// The subtransaction's work now belongs to the level above it.
void LowerAfterCommit(PolarxLease* lease, int level) noexcept {
  lease->remote.begin_level = std::min(lease->remote.begin_level, level - 1);
  if (lease->remote.base_level == level) {
    lease->remote.base_level = level - 1;
  } else {
    lease->remote.release_level = level;
  }
  ForgetReadOnly(lease, level);
  lease->remote.level = level - 1;
}

bool EndsWithLevel(const PolarxLease* lease, int level) {
  return ReachesLevel(lease, level) && lease->remote.begin_level >= level;
}

// What the datanode has done in the subtransaction is undone.
void LowerAfterRollback(PolarxLease* lease, int level) noexcept {
  if (lease->remote.begin_level >= level) {
    LeaseGiveBack(lease, TransactionKeeps(lease));
    return;
  }
  lease->remote.release_level = 0;
  ForgetReadOnly(lease, level);
  lease->remote.level = level - 1;
}

}  // namespace

void TransactionBeforeCommit() {
  TransactionConfirmKept();
  TransactionCommitAll();
}

void TransactionBeforePrepare() {
  for (PolarxLease* lease = ClientLeases(); lease != nullptr; lease = lease->next) {
    if (ReachesLevel(lease, 1)) {
      ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
                      errmsg("cannot PREPARE a transaction that has worked on datanodes"),
                      errdetail("A transaction is open on datanode \"%s\".", lease->node_name)));
    }
  }
  TransactionConfirmKept();
}

void TransactionAfterEnd(bool committed) noexcept {
  NoticesDrop();
  ClientTellAwaited();
  TransactionTellCommitted(committed);
  if (!committed) {
    StopLeases(ReachesLevel, 0);
  }
  GiveBackAll();
}

void TransactionAfterLevel(int level, bool committed) noexcept {
  if (!committed) {
    ClientTellAwaited();
    StopLeases(EndsWithLevel, level);
    SavepointRollBack(level);
  }
  PolarxLease* next;
  for (PolarxLease* lease = ClientLeases(); lease != nullptr; lease = next) {
    next = lease->next;
    if (!ReachesLevel(lease, level)) {
      continue;
    }
    if (committed) {
      LowerAfterCommit(lease, level);
    } else {
      LowerAfterRollback(lease, level);
    }
  }
}

}  // namespace polarx
