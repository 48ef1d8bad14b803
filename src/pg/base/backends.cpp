// Who a process of the server is, by the ProcArray; any process, its main thread.
#include "pg/base/backends.h"

#include "pg/prelude.h"

namespace polarx {

BackendId FindBackend(int pid, Oid* database, Oid* role) {
  LWLockAcquire(ProcArrayLock, LW_SHARED);
  const PGPROC* process = BackendPidGetProcWithLock(pid);
  *database = process != nullptr ? process->databaseId : InvalidOid;
  *role = process != nullptr ? process->roleId : InvalidOid;
  const BackendId backend = process != nullptr ? process->backendId : InvalidBackendId;
  LWLockRelease(ProcArrayLock);
  return backend;
}

}  // namespace polarx
