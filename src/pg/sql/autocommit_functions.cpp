// The SQL functions exec_autocommit and exec_all_autocommit: statements that cannot run in a
// transaction, on leases of their own. In a backend, on its only thread.
#include <libpq-fe.h>

#include "pg/remote/lease_use.h"
#include "pg/remote/session_parameters_replay.h"
#include "pg/sql/statement_arguments.h"
#include "pg/remote/transaction.h"
#include "pg/prelude.h"

using namespace polarx;

namespace {

struct Autocommit {
  PolarxLease** leases;
  RemoteRun* runs;
  int count;
};

void RefuseOpenWork(const NodeRef* nodes, int count) {
  for (int i = 0; i < count; ++i) {
    if (TransactionOpenOn(nodes[i].id)) {
      ereport(ERROR, (errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
                      errmsg("a transaction of this session is open on datanode \"%s\"",
                             nodes[i].name),
                      errhint("Commit or roll back first.")));
    }
  }
}

bool IsAutocommit(const PolarxLease* lease, int /*level*/) { return lease->autocommit; }

void GiveBack(const Autocommit* work) {
  LeasesStop(IsAutocommit, 0);
  for (int i = 0; i < work->count; ++i) {
    LeaseGiveBack(work->leases[i], false);
  }
}

void SendAndFinish(const Autocommit* work, const StatementText* text) {
  ReplayParameters(work->leases, work->count, true);
  for (int i = 0; i < work->count; ++i) {
    (void)LeaseTakeUp(work->leases[i], false);
    RemoteStart(&work->runs[i], work->leases[i], 0, text);
  }
  RemoteFinish(work->runs, work->count, nullptr, true);
}

RemoteRun* RunAutocommit(const NodeRef* nodes, int count, const StatementText* text) {
  PreventCommandIfReadOnly("an autocommit statement on a datanode");
  RefuseOpenWork(nodes, count);
  Autocommit work;
  work.count = count;
  work.leases = static_cast<PolarxLease**>(palloc0(sizeof(PolarxLease*) * count));
  work.runs = static_cast<RemoteRun*>(palloc0(sizeof(RemoteRun) * count));
  if (count > 0) {
    ClientAcquire(nodes, count, SessionParametersAny(true), work.leases);
  }
  for (int i = 0; i < count; ++i) {
    work.leases[i]->autocommit = true;
  }
  PG_TRY();
  { SendAndFinish(&work, text); }
  PG_FINALLY();
  { GiveBack(&work); }
  PG_END_TRY();
  return work.runs;
}

}  // namespace

// exec_autocommit(node name, sql text) text
POLARX_FUNCTION(polarx_exec_autocommit) {
  NodeRef node;
  StatementText statement;
  StatementArguments(fcinfo, 1, false, &statement);
  NodeArgument(fcinfo, 0, &node);
  const RemoteRun* run = RunAutocommit(&node, 1, &statement);
  PG_RETURN_TEXT_P(cstring_to_text(run->tag));
}

// exec_all_autocommit(sql text) TABLE(node name, command_tag text)
POLARX_FUNCTION(polarx_exec_all_autocommit) {
  int count;
  StatementText statement;
  StatementArguments(fcinfo, 0, false, &statement);
  const NodeRef* nodes = ClientAllNodes(&count);
  return CommandTags(fcinfo, nodes, RunAutocommit(nodes, count, &statement), count);
}
