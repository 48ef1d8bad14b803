// Who a process of the server is, by the ProcArray; any process, its main thread.
#pragma once

#include "pg/prelude.h"

namespace polarx {

// Returns kNoPlace if there is no such process; then both are InvalidOid. `role`: the login role.
BackendPlace FindBackend(int pid, Oid* database, Oid* role);

}  // namespace polarx
