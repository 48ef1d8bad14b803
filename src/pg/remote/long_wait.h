// A session waits for datanodes; where that takes long, it may be in a circle of waits. In a
// backend, on its only thread.
#pragma once

#include "core/time.h"

#include "pg/remote/run.h"

namespace polarx {

// Waits, interruptibly, until the socket, by which these runs go on, is ready for `events`; returns
// false if `deadline` has come. After deadlock_timeout the pooler is told for which leases the
// session waits; raises 40P01 if it is to give up.
bool AwaitRuns(const RemoteRun* runs, int count, int socket, int events, TimePoint deadline);

}  // namespace polarx
