// The remote transactions of all nodes are committed at once, and what came of it is told. In a
// backend, on its only thread, before the local commit.
#include <libpq-fe.h>

#include <utility>

#include "pg/remote/commit.h"
#include "pg/remote/errors.h"
#include "pg/remote/kept_leases.h"
#include "pg/remote/savepoint.h"
#include "pg/remote/stop.h"
#include "pg/session/requests.h"
#include "pg/prelude.h"

namespace polarx {
namespace {

constexpr StatementText kCommit = {"COMMIT", 0, nullptr, true};

// Where this transaction has been committed, as long as it is not known what becomes of it here.
const char* committed_nodes = nullptr;

struct Commits {
  RemoteRun* runs;
  int count;
};

bool Committed(const RemoteRun* run) {
  return run->state == RunState::kDone && strcmp(run->tag, "COMMIT") == 0;
}

bool Failed(const RemoteRun* run) {
  return run->state == RunState::kFailed ||
         (run->state == RunState::kDone && strcmp(run->tag, "COMMIT") != 0);
}

// Lost, or still awaited.
bool Unknown(const RemoteRun* run) { return !Committed(run) && !Failed(run); }

using Outcome = bool (*)(const RemoteRun* run);

const RemoteRun* First(const Commits* commits, Outcome outcome) {
  for (int i = 0; i < commits->count; ++i) {
    if (outcome(&commits->runs[i])) {
      return &commits->runs[i];
    }
  }
  return nullptr;
}

const RemoteError* ErrorOf(const RemoteRun* run) {
  return run->error != nullptr
             ? run->error
             : MakeRemoteError(ERRCODE_TRANSACTION_ROLLBACK,
                               psprintf("transaction on datanode \"%s\" was rolled back",
                                        run->lease->node_name),
                               nullptr, nullptr);
}

void AppendOutcome(StringInfo text, const char* title, const Commits* commits, Outcome outcome) {
  const char* separator = ": ";
  appendStringInfo(text, "%s%s", text->len > 0 ? "; " : "", title);
  for (int i = 0; i < commits->count; ++i) {
    const RemoteRun* run = &commits->runs[i];
    if (outcome(run)) {
      appendStringInfo(text, "%s\"%s\"", separator, run->lease->node_name);
      if (outcome == Failed) {
        appendStringInfo(text, " (%s)", ErrorOf(run)->message);
      }
      separator = ", ";
    }
  }
  if (*separator == ':') {
    appendStringInfoString(text, ": none");
  }
}

char* DescribeOutcomes(const char* beginning, const Commits* commits) {
  StringInfoData text;
  initStringInfo(&text);
  AppendOutcome(&text, beginning, commits, Committed);
  AppendOutcome(&text, "failed on", commits, Failed);
  AppendOutcome(&text, "unknown on", commits, Unknown);
  return text.data;
}

// An interrupt while answers are awaited says how far the nodes had come.
void DescribeInterrupted(void* arg) {
  const auto* commits = static_cast<const Commits*>(arg);
  errcontext("%s", DescribeOutcomes("waiting for COMMIT, so far committed on", commits));
}

// Loses nothing yet: as long as no COMMIT has been sent, all nodes can still roll back.
void CheckBeforeCommit(PolarxLease* lease) {
  if (lease->remote.rollback_level > 0 || lease->remote.waited_ms > 0) {
    SavepointSettle(lease);
  }
  if (!lease->connection.broken && !lease->remote.busy && LeaseUsable(lease)) {
    return;
  }
  LeaseBreak(lease);
  ereport(ERROR, (errcode(ERRCODE_CONNECTION_FAILURE),
                  errmsg("connection to datanode \"%s\" was lost", lease->node_name),
                  errdetail("The transaction is rolled back on all nodes."),
                  errcontext("COMMIT on datanode \"%s\"", lease->node_name)));
}

// The leases with transactions, and room for what becomes of them.
Commits OpenCommits() {
  Commits commits = {};
  for (PolarxLease* lease = ClientLeases(); lease != nullptr; lease = lease->next) {
    if (lease->remote.level > 0) {
      CheckBeforeCommit(lease);
      ++commits.count;
    }
  }
  commits.runs = static_cast<RemoteRun*>(palloc0(sizeof(RemoteRun) * (commits.count + 1)));
  return commits;
}

void SendToAll(const Commits* commits, const StatementText* text) {
  RemoteRun* run = commits->runs;
  for (PolarxLease* lease = ClientLeases(); lease != nullptr; lease = lease->next) {
    if (lease->remote.level > 0) {
      (void)LeaseTakeUp(lease, true);
      RemoteStart(run++, lease, 0, text);
    }
  }
}

// What would fail at COMMIT fails now, while all nodes and the coordinator can still roll back.
void CheckConstraints(const Commits* commits) {
  constexpr StatementText kImmediate = {"SET CONSTRAINTS ALL IMMEDIATE", 0, nullptr, true};
  if (commits->count > 1) {
    SendToAll(commits, &kImmediate);
    (void)RemoteFinish(commits->runs, commits->count, nullptr, true);
  }
}

// The nodes' names, which are needed if the local commit fails; in the transaction's memory, since
// nothing may fail any more when the nodes have committed.
char* NamesOfNodes() {
  const MemoryContext caller = MemoryContextSwitchTo(TopTransactionContext);
  StringInfoData names;
  initStringInfo(&names);
  const char* separator = "";
  for (PolarxLease* lease = ClientLeases(); lease != nullptr; lease = lease->next) {
    if (lease->remote.level > 0) {
      appendStringInfo(&names, "%s\"%s\"", separator, lease->node_name);
      separator = ", ";
    }
  }
  MemoryContextSwitchTo(caller);
  return names.data;
}

[[noreturn]] void RaisePartly(const Commits* commits) {
  ClientCountPartialCommit();
  ereport(ERROR, (errcode(ERRCODE_T_R_STATEMENT_COMPLETION_UNKNOWN),
                  errmsg("transaction was not committed on all datanodes"),
                  errdetail_internal("%s.", DescribeOutcomes("Committed on", commits)),
                  errhint("The local transaction is rolled back; the nodes have to be brought in "
                          "agreement by hand.")));
  pg_unreachable();
}

[[noreturn]] void RaiseLost(const Commits* commits, const RemoteRun* lost) {
  const char* reason = lost->error->detail != nullptr ? lost->error->detail : "";
  ereport(ERROR,
          (errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
           errmsg("connection to datanode \"%s\" was lost during COMMIT", lost->lease->node_name),
           commits->count == 1
               ? errdetail_internal("%s", reason)
               : errdetail_internal("%s.\n%s", DescribeOutcomes("Committed on", commits), reason),
           errhint("The transaction may have been committed there or not.")));
  pg_unreachable();
}

void RaiseUnlessAllCommitted(const Commits* commits) {
  const RemoteRun* failed = First(commits, Failed);
  const RemoteRun* unknown = First(commits, Unknown);
  if (failed == nullptr && unknown == nullptr) {
    return;
  }
  if (First(commits, Committed) != nullptr) {
    RaisePartly(commits);
  }
  if (unknown != nullptr) {
    RaiseLost(commits, unknown);
  }
  RaiseRemoteError(ErrorOf(failed), failed->lease, kCommit.sql);
}

[[noreturn]] void RaiseUnknown(const Commits* commits, const char* reason) {
  ereport(ERROR, (errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
                  errmsg("COMMIT on datanode \"%s\" was not awaited",
                         First(commits, Unknown)->lease->node_name),
                  errdetail_internal("%s.\nThe wait ended with: %s",
                                     DescribeOutcomes("Committed on", commits), reason),
                  errhint("The transaction may have been committed there or not.")));
  pg_unreachable();
}

// The caught error must not read like "nothing was done" unless nothing was: what has become of the
// nodes by now decides. Returns if all of them have committed all the same.
void ResolveInterrupted(const Commits* commits) {
  const ErrorData* interrupt = CopyErrorData();
  StopRuns(commits->runs, commits->count);
  const bool committed = First(commits, Committed) != nullptr;
  const bool unknown = First(commits, Unknown) != nullptr;
  if (!committed && !unknown) {
    PG_RE_THROW();
  }
  FlushErrorState();
  if (!committed) {
    RaiseUnknown(commits, interrupt->message);
  }
  if (unknown || First(commits, Failed) != nullptr ||
      interrupt->sqlerrcode != ERRCODE_QUERY_CANCELED) {
    RaisePartly(commits);
  }
  ereport(WARNING, (errmsg("cancel request came too late: all datanodes have committed")));
}

void AwaitOutcomes(const Commits* commits) {
  const MemoryContext caller = CurrentMemoryContext;
  PG_TRY();
  { (void)RemoteFinish(commits->runs, commits->count, nullptr, false); }
  PG_CATCH();
  {
    MemoryContextSwitchTo(caller);
    ResolveInterrupted(commits);
  }
  PG_END_TRY();
}

}  // namespace

void TransactionCommitAll() {
  Commits commits = OpenCommits();
  if (commits.count == 0) {
    return;
  }
  CheckConstraints(&commits);
  // From then on no other session may choose this transaction as the one that fails.
  PreCommit_CheckForSerializationFailure();
  char* names = NamesOfNodes();
  SendToAll(&commits, &kCommit);
  ErrorContextCallback context = {error_context_stack, DescribeInterrupted, &commits};
  error_context_stack = &context;
  AwaitOutcomes(&commits);
  error_context_stack = context.previous;
  for (int i = 0; i < commits.count; ++i) {
    TransactionForget(commits.runs[i].lease);
  }
  RaiseUnlessAllCommitted(&commits);
  committed_nodes = names;
}

void TransactionTellCommitted(bool committed) noexcept {
  const char* nodes = std::exchange(committed_nodes, nullptr);
  if (nodes == nullptr || committed) {
    return;
  }
  ClientCountPartialCommit();
  ereport(WARNING,
          (errcode(ERRCODE_T_R_STATEMENT_COMPLETION_UNKNOWN),
           errmsg("transaction failed after datanodes had committed it"),
           errdetail_internal("Committed on: %s.", nodes),
           errhint("The local transaction is rolled back; the nodes have to be brought in "
                   "agreement by hand.")));
}

}  // namespace polarx
