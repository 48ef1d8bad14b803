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

}  // namespace polarx
