// The leases of the session's transactions: those with work under way, those that it keeps from one
// transaction to the next, and what takes these away. In a backend, on its only thread.
#include <libpq-fe.h>

#include "pg/base/guc.h"
#include "pg/remote/kept_leases.h"
#include "pg/remote/stop.h"
#include "pg/session/park.h"
#include "pg/prelude.h"

namespace polarx {
namespace {

bool IsIdle(const PolarxLease* lease) {
  return TransactionOwns(lease) && lease->remote.level == 0 && !lease->remote.busy;
}

// Returns whether the current role has a transaction open on it.
bool IsOpen(const PolarxLease* lease) {
  return TransactionOwns(lease) && lease->remote.level > 0 && lease->role == GetUserId();
}

// Returns whether the role may use the server, which may be gone.
bool MayUse(Oid server, Oid role) {
  return SearchSysCacheExists1(FOREIGNSERVEROID, ObjectIdGetDatum(server)) &&
         CheckServerAcl(server, role, ACL_USAGE) == ACLCHECK_OK;
}

// Rolls the lease back, so that it stays with the session. Returns false if it is broken.
bool Keep(PolarxLease* lease) noexcept {
  if (PQtransactionStatus(lease->conn) != PQTRANS_IDLE) {
    const char* rollback = "ROLLBACK";
    LeasePost(lease, &rollback, 1);
  }
  return !lease->connection.broken;
}

}  // namespace

void TransactionForget(PolarxLease* lease) noexcept {
  lease->remote.begin_level = 0;
  lease->remote.level = 0;
  lease->remote.release_level = 0;
  lease->remote.rollback_level = 0;
  lease->remote.postponed = false;
  lease->remote.waited_ms = 0;
}

bool TransactionOwns(const PolarxLease* lease) {
  return !lease->borrower.present && !lease->remote.autocommit;
}

NodeRef* TransactionNodes(int* count) {
  *count = 0;
  for (const PolarxLease* lease = ClientLeases(); lease != nullptr; lease = lease->next) {
    ++*count;
  }
  auto* nodes = static_cast<NodeRef*>(palloc(sizeof(NodeRef) * (*count + 1)));
  *count = 0;
  for (const PolarxLease* lease = ClientLeases(); lease != nullptr; lease = lease->next) {
    if (IsOpen(lease)) {
      nodes[*count].id = lease->node;
      strlcpy(nodes[(*count)++].name, lease->node_name, NAMEDATALEN);
    }
  }
  return nodes;
}

PolarxLease* TransactionLease(Oid node) {
  for (PolarxLease* lease = ClientLeases(); lease != nullptr; lease = lease->next) {
    if (IsOpen(lease) && lease->node == node) {
      return lease;
    }
  }
  return nullptr;
}

bool TransactionOpenOn(Oid node) {
  for (PolarxLease* lease = ClientLeases(); lease != nullptr; lease = lease->next) {
    if (lease->node == node &&
        (lease->borrower.present ? PQtransactionStatus(lease->conn) != PQTRANS_IDLE
                                 : lease->remote.level > 0)) {
      return true;
    }
  }
  return false;
}

bool TransactionKeeps(const PolarxLease* lease) {
  return parameters.persistent_datanode_connections && !proc_exit_inprogress &&
         !lease->hold.recalled;
}

void LeaseGiveBack(PolarxLease* lease, bool keep) noexcept {
  PGconn* conn = lease->conn;
  if (!lease->connection.broken && lease->remote.unread_batches > 0 && !AwaitPosted(lease)) {
    LeaseBreak(lease);
  }
  TransactionForget(lease);
  if (keep && !lease->connection.broken && !lease->connection.cancelled &&
      ClientLeaseCurrent(lease) && Keep(lease)) {
    return;
  }
  PQclear(lease->remote.result);
  lease->remote.result = nullptr;
  lease->remote.autocommit = false;
  const bool sound =
      !lease->connection.broken && PQexitPipelineMode(conn) == 1 && PQsetnonblocking(conn, 0) == 0;
  if (sound && PQtransactionStatus(conn) == PQTRANS_IDLE && ClientPark(lease)) {
    return;
  }
  ClientRelease(lease, sound ? protocol::ReleaseKind::kClean : protocol::ReleaseKind::kClose);
}

void TransactionRefreshKept() {
  bool kept = false;
  bool changed = false;
  for (const PolarxLease* lease = ClientLeases(); lease != nullptr; lease = lease->next) {
    if (IsIdle(lease) && lease->role == GetUserId()) {
      kept = true;
      changed = changed || lease->hold.catalog_epoch != ClientCatalogEpoch();
    }
  }
  if (kept) {
    ClientHeedRecalls();
  }
  if (changed) {
    ClientConfirm();
  }
}

void TransactionConfirmKept() {
  if (!parameters.persistent_datanode_connections || ClientLeases() == nullptr) {
    return;
  }
  AcceptInvalidationMessages();
  bool changed = false;
  for (PolarxLease* lease = ClientLeases(); lease != nullptr; lease = lease->next) {
    if (TransactionOwns(lease) && lease->hold.catalog_epoch != ClientCatalogEpoch()) {
      changed = true;
    }
  }
  if (changed) {
    ClientConfirm();
  }
  for (PolarxLease* lease = ClientLeases(); lease != nullptr; lease = lease->next) {
    if (TransactionOwns(lease) && !MayUse(lease->node, lease->role)) {
      LeaseRecall(lease);
    }
  }
}

void TransactionDiscardKept() {
  PolarxLease* next;
  for (PolarxLease* lease = ClientLeases(); lease != nullptr; lease = next) {
    next = lease->next;
    if (IsIdle(lease)) {
      LeaseGiveBack(lease, false);
    }
  }
}

}  // namespace polarx
