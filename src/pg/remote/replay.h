// The session's parameters are set on leases, which know what they were given. In a backend, on its
// only thread.
#pragma once

#include "pg/remote/parameters.h"
#include "pg/session/leases.h"

namespace polarx {

// Sets on idle leases, on all of them at once, what their role wants and they do not have yet, and
// resets what it does not want any more; `with_local`: what is local as well, for leases that are
// not kept. Waits interruptibly; afterwards the leases are out of pipeline mode. Raises the error
// of a datanode, or 08006 after pooler.pooler_dn_set_timeout; some leases are then still under way,
// and the caller stops them (StopLeases).
void ReplayParameters(PolarxLease* const* leases, int count, bool with_local);

// Queues the local parameters of the lease's role in the pipeline; returns how many commands.
int ReplayQueueLocal(PolarxLease* lease);
// Returns the name of the local parameter that command `index` of these sets, NULL if there is
// none.
const char* ReplayLocalName(const PolarxLease* lease, int index);

// The lease's transaction sets or resets the parameter, and may be rolled back: what the datanode's
// session has of it is not known any more.
void ReplayUncertain(PolarxLease* lease, const char* name);

}  // namespace polarx
