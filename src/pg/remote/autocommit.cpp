// Statements that cannot run in a transaction run here, on leases of their own. In a backend, on
// its only thread.
#include "pg/remote/autocommit.h"
#include "pg/remote/kept_leases.h"
#include "pg/remote/replay.h"
#include "pg/remote/stop.h"
#include "pg/remote/transaction.h"
#include "pg/prelude.h"

namespace polarx {
namespace {

struct Autocommit {
  PolarxLease** leases;
  RemoteRun* runs;
  int count;
};

void RefuseOpenWork(const NodeRef* nodes, int count) {
  for (int i = 0; i < count; ++i) {
    if (TransactionOpenOn(nodes[i].id)) {
      ereport(ERROR,
              (errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
               errmsg("a transaction of this session is open on datanode \"%s\"", nodes[i].name),
               errhint("Commit or roll back first.")));
    }
  }
}

void GiveBack(const Autocommit* work) {
  StopLeases(work->leases, work->count);
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
  (void)RemoteFinish(work->runs, work->count, nullptr, true);
}

}  // namespace

RemoteRun* AutocommitRun(const NodeRef* nodes, int count, const StatementText* text) {
  TransactionRefuseParallel();
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
    work.leases[i]->remote.autocommit = true;
  }
  PG_TRY();
  { SendAndFinish(&work, text); }
  PG_FINALLY();
  { GiveBack(&work); }
  PG_END_TRY();
  return work.runs;
}

}  // namespace polarx
