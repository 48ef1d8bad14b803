// Who a process of the server is, by the ProcArray; any process, its main thread.
#include "backends.h"

#include "prelude.h"

namespace polarx {

bool FindBackend(int pid, Oid* database, Oid* role) {
  LWLockAcquire(ProcArrayLock, LW_SHARED);
  const PGPROC* process = BackendPidGetProcWithLock(pid);
  *database = process != nullptr ? process->databaseId : InvalidOid;
  *role = process != nullptr ? process->roleId : InvalidOid;
  LWLockRelease(ProcArrayLock);
  return process != nullptr;
}

}  // namespace polarx
