// Who a process of the server is, by the ProcArray; any process, its main thread.
#pragma once

#include "pg/prelude.h"

namespace polarx {

// Returns kNoPlace if there is no such process; then both are InvalidOid. `role`: the login role.
BackendPlace FindBackend(int pid, Oid* database, Oid* role);

// Who else uses a database.
struct DatabaseUse {
  int sessions;      // of clients; background processes are not counted
  int transactions;  // that are prepared
};
DatabaseUse CountDatabaseUse(Oid database);

}  // namespace polarx
