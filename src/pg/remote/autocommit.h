// Statements that cannot run in a transaction. In a backend, on its only thread.
#pragma once

#include "pg/remote/run.h"

namespace polarx {

// Runs the statement on all `nodes` at once, on leases of its own, outside the local transaction.
// Returns the runs, all kDone, in the order of `nodes`; palloc'd, their leases are gone. Raises
// 25001 where this session has a transaction open on one of the nodes, 25006 in a transaction that
// is READ ONLY, and the error of any node.
RemoteRun* AutocommitRun(const NodeRef* nodes, int count, const StatementText* text);

}  // namespace polarx
