// Statements run in remote transactions, which are begun by the first one, with a savepoint where
// the local transaction has a subtransaction. In a backend, on its only thread.
#include <libpq-fe.h>

#include "pg/base/text.h"
#include "pg/remote/errors.h"
#include "pg/remote/kept_leases.h"
#include "pg/remote/replay.h"
#include "pg/remote/savepoint.h"
#include "pg/remote/stop.h"
#include "pg/remote/transaction.h"
#include "pg/prelude.h"

namespace polarx {
namespace {

PolarxLease* FindLease(Oid node) {
  for (PolarxLease* lease = ClientLeases(); lease != nullptr; lease = lease->next) {
    if (TransactionOwns(lease) && lease->node == node && lease->role == GetUserId()) {
      return lease;
    }
  }
  return nullptr;
}

// Returns the lease of this transaction, or a sound one kept from an earlier one; NULL if one has
// to be acquired.
PolarxLease* ReadyLease(const NodeRef* node) {
  PolarxLease* lease = FindLease(node->id);
  if (lease == nullptr) {
    return nullptr;
  }
  strlcpy(lease->node_name, node->name, NAMEDATALEN);  // the server may have been renamed
  if (lease->remote.rollback_level > 0) {
    SavepointSettle(lease);
  }
  if (lease->remote.busy && !lease->connection.broken) {
    ereport(ERROR, (errcode(ERRCODE_OBJECT_IN_USE),
                    errmsg("connection to datanode \"%s\" is in use by another statement",
                           lease->node_name),
                    errdetail("That statement's rows are being read.")));
  }
  if (lease->remote.level > 0) {
    if (lease->connection.broken) {
      RaiseTransactionLost(lease);
    }
    return lease;
  }
  if (!ClientLeaseCurrent(lease) || !LeaseUsable(lease)) {
    LeaseBreak(lease);
  }
  if (lease->connection.broken || lease->hold.recalled) {
    LeaseGiveBack(lease, false);
    return nullptr;
  }
  return lease;
}

void AcquireMissing(const NodeRef* nodes, int count, PolarxLease** leases) {
  auto* missing = static_cast<NodeRef*>(palloc(sizeof(NodeRef) * count));
  auto* acquired = static_cast<PolarxLease**>(palloc(sizeof(PolarxLease*) * count));
  int wanted = 0;
  for (int i = 0; i < count; ++i) {
    if (leases[i] == nullptr) {
      missing[wanted++] = nodes[i];
    }
  }
  if (wanted > 0) {
    ClientAcquire(missing, wanted, SessionParametersAny(true), acquired);
  }
  for (int i = 0, next = 0; next < wanted; ++i) {
    if (leases[i] == nullptr) {
      leases[i] = acquired[next++];
    }
  }
}

// Those that are about to begin a transaction get the session's parameters first.
void SetParameters(PolarxLease** leases, int count) {
  auto** beginning = static_cast<PolarxLease**>(palloc(sizeof(PolarxLease*) * (count + 1)));
  int wanted = 0;
  for (int i = 0; i < count; ++i) {
    if (leases[i]->remote.level == 0) {
      beginning[wanted++] = leases[i];
    }
  }
  if (wanted == 0) {
    return;
  }
  PG_TRY();
  { ReplayParameters(beginning, wanted, false); }
  PG_CATCH();
  {
    StopLeases(beginning, wanted);
    for (int i = 0; i < wanted; ++i) {
      LeaseGiveBack(beginning[i], TransactionKeeps(beginning[i]));
    }
    PG_RE_THROW();
  }
  PG_END_TRY();
}

bool QueueBegin(PolarxLease* lease, bool read_only) {
  static const char* const kLevels[] = {"READ UNCOMMITTED", "READ COMMITTED", "REPEATABLE READ",
                                        "SERIALIZABLE"};
  static_assert(XACT_READ_UNCOMMITTED == 0 && XACT_SERIALIZABLE == 3);
  char command[128];
  // READ WRITE is not said, for a datanode in recovery refuses it.
  snprintf(command, sizeof(command), "START TRANSACTION ISOLATION LEVEL %s%s%s",
           kLevels[XactIsoLevel], read_only ? ", READ ONLY" : "",
           XactDeferrable ? ", DEFERRABLE" : "");
  return RemoteQueue(lease, command);
}

bool QueueSavepoint(PolarxLease* lease, const char* verb, int level) {
  char command[48];
  snprintf(command, sizeof(command), "%s s%d", verb, level);
  return RemoteQueue(lease, command);
}

// Queues what takes the remote transaction to the local nest level; returns how many commands.
int QueuePrefix(PolarxLease* lease) {
  const int level = GetCurrentTransactionNestLevel();
  int queued = 0;
  if (lease->remote.level == 0) {
    // READ ONLY may be a savepoint's own, and then end with it: so it needs one there, too.
    lease->remote.base_level = XactReadOnly ? 1 : level;
    const bool read_only = XactReadOnly && level == 1;
    queued += QueueBegin(lease, read_only);
    queued += ReplayQueueLocal(lease);
    lease->remote.begin_level = level;
    lease->remote.level = lease->remote.base_level;
    lease->remote.read_only_level = read_only ? level : 0;
  }
  if (lease->remote.release_level > 0) {
    queued += QueueSavepoint(lease, "RELEASE SAVEPOINT", lease->remote.release_level);
    lease->remote.release_level = 0;
  }
  while (lease->remote.level < level) {
    queued += QueueSavepoint(lease, "SAVEPOINT", ++lease->remote.level);
  }
  if (XactReadOnly && lease->remote.read_only_level == 0) {
    queued += RemoteQueue(lease, "SET TRANSACTION READ ONLY");
    lease->remote.read_only_level = level;
  }
  return queued;
}

// A statement that has ended the remote transaction behind our back is not to be built upon.
void CheckStillOpen(const RemoteRun* run) {
  PolarxLease* lease = run->lease;
  if (PQtransactionStatus(lease->conn) != PQTRANS_INTRANS) {
    LeaseBreak(lease);
    if (PQstatus(lease->conn) != CONNECTION_OK) {
      RaiseRemoteError(MakeConnectionLost(lease, nullptr), lease, run->sql);
    }
    ereport(ERROR, (errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
                    errmsg("statement has ended the transaction on datanode \"%s\"",
                           lease->node_name),
                    (AddStatementContext(lease->node_name, run->sql), 0)));
  }
}

// libpq would take what comes next for another encoding than what goes.
void CheckEncoding(const RemoteRun* run) {
  const int encoding = PQclientEncoding(run->lease->conn);
  if (encoding != GetDatabaseEncoding()) {
    ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
                    errmsg("session on datanode \"%s\" has client_encoding set to \"%s\"",
                           run->lease->node_name, pg_encoding_to_char(encoding)),
                    errdetail("Texts are exchanged in the database's encoding, %s.",
                              GetDatabaseEncodingName()),
                    (AddStatementContext(run->lease->node_name, run->sql), 0)));
  }
}

// A statement on several nodes, for the context of an error.
struct Statement {
  const RemoteRun* runs;
  const int* begun;  // commands in front of a run that begins a transaction, else 0
  int count;
};

// It was not the statement that failed, but a local parameter, set in front of it.
void DescribeLocalParameter(void* arg) {
  const auto* statement = static_cast<const Statement*>(arg);
  for (int i = 0; i < statement->count; ++i) {
    const RemoteRun* run = &statement->runs[i];
    const int failed = statement->begun[i] - run->prefix;  // 0: START TRANSACTION
    const char* name = run->error != nullptr && run->prefix > 0 && failed > 0
                           ? ReplayLocalName(run->lease, failed - 1)
                           : nullptr;
    if (name != nullptr) {
      errcontext("local parameter \"%s\" of this session on datanode \"%s\"", name,
                 run->lease->node_name);
      return;
    }
  }
}

}  // namespace

void TransactionRefuseParallel() {
  if (IsInParallelMode()) {
    ereport(ERROR, (errcode(ERRCODE_INVALID_TRANSACTION_STATE),
                    errmsg("cannot work on datanodes in a parallel query"),
                    errhint("Mark the function that does so as PARALLEL UNSAFE.")));
  }
}

RemoteRun* TransactionRun(const NodeRef* nodes, int count, const StatementText* text,
                          RowSink* sink) {
  TransactionRefuseParallel();
  TransactionRefreshKept();
  auto** leases = static_cast<PolarxLease**>(palloc0(sizeof(PolarxLease*) * count));
  for (int i = 0; i < count; ++i) {
    leases[i] = ReadyLease(&nodes[i]);
  }
  AcquireMissing(nodes, count, leases);
  SetParameters(leases, count);
  auto* runs = static_cast<RemoteRun*>(palloc0(sizeof(RemoteRun) * count));
  auto* begun = static_cast<int*>(palloc0(sizeof(int) * count));
  for (int i = 0; i < count; ++i) {
    const bool begins = leases[i]->remote.level == 0;
    (void)LeaseTakeUp(leases[i], true);
    const int prefix = QueuePrefix(leases[i]);
    begun[i] = begins ? prefix : 0;
    RemoteStart(&runs[i], leases[i], prefix, text);
  }
  Statement statement = {runs, begun, count};
  ErrorContextCallback context = {error_context_stack, DescribeLocalParameter, &statement};
  error_context_stack = &context;
  (void)RemoteFinish(runs, count, sink, true);
  error_context_stack = context.previous;
  for (int i = 0; i < count; ++i) {
    CheckStillOpen(&runs[i]);
    CheckEncoding(&runs[i]);
  }
  return runs;
}

}  // namespace polarx
