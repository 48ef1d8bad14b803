// A backend waits for a socket. On its only thread.
#pragma once

#include "core/time.h"

#include "pg/session/leases.h"

namespace polarx {

// Waits until the socket is ready for `events` (WL_SOCKET_READABLE, WL_SOCKET_WRITEABLE), at most
// `timeout_ms` (-1: without a limit). If `interruptible` it handles interrupts, and may raise an
// error; else interrupts and latch are left for later. Returns false if the time is over.
bool ClientWaitSocket(int socket, int events, long timeout_ms, bool interruptible);

// The same for the lease's socket (`events` 0: not for it), but whatever the pooler says wakes up
// too, and is heeded. Without interrupts it returns after a moment all the same, so that the caller
// can look for those that are pending.
void ClientWaitLease(const PolarxLease* lease, int events, TimePoint deadline, bool interruptible);

}  // namespace polarx
