// A backend waits for a socket. On its only thread.
#pragma once

namespace polarx {

// Waits until the socket is ready for `events` (WL_SOCKET_READABLE, WL_SOCKET_WRITEABLE), at most
// `timeout_ms` (-1: without a limit). If `interruptible` it handles interrupts, and may raise an
// error; else interrupts and latch are left for later. Returns false if the time is over.
bool ClientWaitSocket(int socket, int events, long timeout_ms, bool interruptible);

}  // namespace polarx
