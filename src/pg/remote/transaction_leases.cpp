// The leases of the session's transactions: those with work under way, those that it keeps from one
// transaction to the next, and what takes these away. In a backend, on its only thread.
#include <libpq-fe.h>

#include "pg/base/guc.h"
#include "pg/remote/lease_use.h"
#include "pg/remote/transaction.h"
#include "pg/prelude.h"

namespace polarx {
namespace {

bool IsIdle(const PolarxLease* lease) {
  return TransactionOwns(lease) && lease->remote_level == 0 && !lease->busy;
}

// Has the current role a transaction open on it?
bool IsOpen(const PolarxLease* lease) {
  return TransactionOwns(lease) && lease->remote_level > 0 && lease->role == GetUserId();
}

// Of a server that may be gone.
bool MayUse(Oid server, Oid role) {
  return SearchSysCacheExists1(FOREIGNSERVEROID, ObjectIdGetDatum(server)) &&
         pg_foreign_server_aclcheck(server, role, ACL_USAGE) == ACLCHECK_OK;
}

}  // namespace

bool TransactionOwns(const PolarxLease* lease) { return !lease->borrowed && !lease->autocommit; }

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
        (lease->borrowed ? PQtransactionStatus(lease->conn) != PQTRANS_IDLE
                         : lease->remote_level > 0)) {
      return true;
    }
  }
  return false;
}

bool TransactionKeeps(const PolarxLease* lease) {
  return parameters.persistent_datanode_connections && !proc_exit_inprogress && !lease->recalled;
}

void TransactionRefreshKept() {
  bool kept = false;
  bool changed = false;
  for (const PolarxLease* lease = ClientLeases(); lease != nullptr; lease = lease->next) {
    if (IsIdle(lease) && lease->role == GetUserId()) {
      kept = true;
      changed = changed || lease->catalog_epoch != ClientCatalogEpoch();
    }
  }
  if (kept) {
    ClientLook();
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
    if (TransactionOwns(lease) && lease->catalog_epoch != ClientCatalogEpoch()) {
      changed = true;
    }
  }
  if (changed) {
    ClientConfirm();
  }
  for (PolarxLease* lease = ClientLeases(); lease != nullptr; lease = lease->next) {
    if (TransactionOwns(lease) && !MayUse(lease->node, lease->role)) {
      lease->recalled = true;
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
