// The session tells the pooler worker that it has waited for long for answers of datanodes, and
// hears if that wait is in a circle of waits. In a backend, on its only thread.
#pragma once

#include "core/time.h"

#include "pg/session/leases.h"

namespace polarx {

// The answers of these leases' datanodes are awaited. No ereport.
void ClientTellAwaits(PolarxLease* const* leases, int count) noexcept;
// Whatever was told is over. No ereport.
void ClientTellAwaited() noexcept;
// Waits, interruptibly, until the socket is ready for `events` or the pooler has said something.
// Returns whether the socket is ready.
bool ClientWaitOrHear(int socket, int events, TimePoint deadline);
// Returns who waits for whom, palloc'd, if the wait that was told is in a circle; else null.
char* ClientDeadlock();

}  // namespace polarx
