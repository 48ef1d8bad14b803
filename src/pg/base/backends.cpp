// Who a process of the server is, by the ProcArray; any process, its main thread.
#include "pg/base/backends.h"

#include "pg/prelude.h"

namespace polarx {

BackendPlace FindBackend(int pid, Oid* database, Oid* role) {
  LWLockAcquire(ProcArrayLock, LW_SHARED);
  PGPROC* process = BackendPidGetProcWithLock(pid);
  *database = process != nullptr ? process->databaseId : InvalidOid;
  *role = process != nullptr ? process->roleId : InvalidOid;
  const BackendPlace place = process != nullptr ? PlaceOf(process) : kNoPlace;
  LWLockRelease(ProcArrayLock);
  return place;
}

DatabaseUse CountDatabaseUse(Oid database) {
  DatabaseUse use = {0, 0};
  LWLockAcquire(ProcArrayLock, LW_SHARED);
  for (uint32 i = 0; i < ProcGlobal->allProcCount; i++) {
    PGPROC* process = &ProcGlobal->allProcs[i];
    if (process->databaseId == database && process != MyProc && IsClientSession(process) &&
        (process->statusFlags & PROC_IS_AUTOVACUUM) == 0 &&
        // What a process has left behind says all this as well.
        process->pid != 0 && BackendPidGetProcWithLock(process->pid) == process) {
      use.sessions++;
    }
  }
  LWLockRelease(ProcArrayLock);
  for (int i = 0; i < max_prepared_xacts; i++) {
    const PGPROC* transaction = &PreparedXactProcs[i];
    if (transaction->databaseId == database && TransactionIdIsInProgress(transaction->xid)) {
      use.transactions++;
    }
  }
  return use;
}

}  // namespace polarx
