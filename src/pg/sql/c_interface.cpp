// The C interface for other extensions, and the end of leases that a borrower has not released; in
// a backend, on its only thread.
#include <libpq-fe.h>

#include <algorithm>

#include "core/protocol.h"

#pragma GCC visibility push(default)
#include "polarx_pooler.h"
#pragma GCC visibility pop

#include "pg/remote/kept_leases.h"
#include "pg/remote/replay.h"
#include "pg/remote/stop.h"
#include "pg/remote/transaction.h"
#include "pg/session/park.h"
#include "pg/sql/c_interface.h"
#include "pg/prelude.h"

namespace polarx {
namespace {

bool IsForgotten(const PolarxLease* lease, int level) {
  return lease->borrower.present && lease->borrower.level >= level;
}

// Gives back the borrowed leases that were acquired at `level` or deeper.
void ReleaseForgotten(int level) noexcept {
  ClientHangUpStranded(IsForgotten, level);
  StopLeases(IsForgotten, level);
  PolarxLease* next;
  for (PolarxLease* lease = ClientLeases(); lease != nullptr; lease = next) {
    next = lease->next;
    if (IsForgotten(lease, level)) {
      ClientRelease(lease, protocol::ReleaseKind::kClean);
    }
  }
}

int CompareIds(const void* left, const void* right) {
  return oid_cmp(&static_cast<const NodeRef*>(left)->id, &static_cast<const NodeRef*>(right)->id);
}

void CheckDifferent(const NodeRef* nodes, int count) {
  auto* sorted = static_cast<NodeRef*>(palloc(sizeof(NodeRef) * count));
  memcpy(sorted, nodes, sizeof(NodeRef) * count);
  qsort(sorted, count, sizeof(NodeRef), CompareIds);
  for (int i = 1; i < count; ++i) {
    if (sorted[i].id == sorted[i - 1].id) {
      ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                      errmsg("datanode \"%s\" is named twice in one request", sorted[i].name)));
    }
  }
  pfree(sorted);
}

// Does the borrower hold it? It may have been released, by the borrower or by the end of a
// transaction.
bool Held(const PolarxLease* lease) {
  const PolarxLease* held = ClientLeases();
  while (held != nullptr && held != lease) {
    held = held->next;
  }
  return held != nullptr && held->borrower.present;
}

const PolarxLease* RequireHeld(const PolarxLease* lease) {
  if (!Held(lease)) {
    ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                    errmsg("lease of a datanode connection has been released")));
  }
  return lease;
}

// "": the server has no such option, or is gone.
const char* ServerOption(Oid id, const char* name) {
  const ForeignServer* server = GetForeignServerExtended(id, FSV_MISSING_OK);
  ListCell* cell;
  foreach (cell, server != nullptr ? server->options : NIL) {
    auto* option = static_cast<DefElem*>(lfirst(cell));
    if (strcmp(option->defname, name) == 0) {
      return defGetString(option);
    }
  }
  return "";
}

// The borrower gets the connections as libpq makes them: blocking, with libpq's own notices.
void SetParameters(PolarxLease** leases, int count) {
  const PQnoticeReceiver receiver = PQsetNoticeReceiver(leases[0]->conn, nullptr, nullptr);
  PG_TRY();
  { ReplayParameters(leases, count, false); }
  PG_CATCH();
  {
    StopLeases(leases, count);
    for (int i = 0; i < count; ++i) {
      LeaseGiveBack(leases[i], false);
    }
    PG_RE_THROW();
  }
  PG_END_TRY();
  for (int i = 0; i < count; ++i) {
    (void)PQsetNoticeReceiver(leases[i]->conn, receiver, nullptr);
    (void)PQsetnonblocking(leases[i]->conn, 0);
  }
}

}  // namespace

void BorrowersAfterEnd() noexcept { ReleaseForgotten(1); }

void BorrowersAfterLevel(int level, bool committed) noexcept {
  if (!committed) {
    ReleaseForgotten(level);
    return;
  }
  for (PolarxLease* lease = ClientLeases(); lease != nullptr; lease = lease->next) {
    if (lease->borrower.present) {
      lease->borrower.level = std::min(lease->borrower.level, level - 1);
    }
  }
}

}  // namespace polarx

void polarx_pooler_acquire(const char* const* nodes, int count, PolarxLease** leases) {
  polarx::TransactionRefuseParallel();
  polarx::ClientCheckCount(count);
  auto* refs = static_cast<polarx::NodeRef*>(palloc(sizeof(polarx::NodeRef) * count));
  for (int i = 0; i < count; ++i) {
    polarx::ClientResolveNode(nodes[i], &refs[i]);
  }
  if (count > 1) {
    polarx::CheckDifferent(refs, count);
  }
  bool sets = polarx::SessionParametersAny(false);
  polarx::ClientAcquire(refs, count, sets, leases);
  for (int i = 0; i < count; ++i) {
    sets = sets || leases[i]->remote.applied != nullptr;
  }
  pfree(refs);
  if (sets) {
    polarx::SetParameters(leases, count);
  }
  const int level = GetCurrentTransactionNestLevel();
  for (int i = 0; i < count; ++i) {
    leases[i]->borrower = {.present = true, .level = level};
    polarx::ClientNoteBorrowed(leases[i]);
  }
}

pg_conn* polarx_pooler_connection(PolarxLease* lease) { return polarx::RequireHeld(lease)->conn; }

const char* polarx_pooler_node(PolarxLease* lease) { return polarx::RequireHeld(lease)->node_name; }

const char* polarx_pooler_host(PolarxLease* lease) {
  const char* host = polarx::ServerOption(polarx::RequireHeld(lease)->node, "host");
  return *host != '\0' ? host : polarx::ServerOption(lease->node, "hostaddr");
}

int polarx_pooler_port(PolarxLease* lease) {
  const char* port = polarx::ServerOption(polarx::RequireHeld(lease)->node, "port");
  return *port != '\0' ? atoi(port) : DEF_PGPORT;
}

void polarx_pooler_cancel(PolarxLease* lease) {
  (void)polarx::RequireHeld(lease);
  polarx::ClientCancel(lease);
}

void polarx_pooler_release(PolarxLease* lease, PolarxReleaseKind kind) {
  using polarx::protocol::ReleaseKind;
  if (!polarx::Held(lease)) {
    return;
  }
  if (kind == POLARX_RELEASE_PARK) {
    polarx::ClientParkOrRelease(lease);
  } else {
    polarx::ClientRelease(lease, kind == POLARX_RELEASE_CLEAN ? ReleaseKind::kClean
                                 : kind == POLARX_RELEASE_IN_TRANSACTION
                                     ? ReleaseKind::kInTransaction
                                     : ReleaseKind::kClose);
  }
}

void polarx_pooler_release_all(PolarxLease* const* leases, int count, PolarxReleaseKind kind) {
  polarx::ClientCork(count > 1);
  for (int i = 0; i < count; ++i) {
    polarx_pooler_release(leases[i], kind);
  }
  polarx::ClientUncork();
}
