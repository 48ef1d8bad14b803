// The pooler worker's listening Unix socket and the lock that says whose it is; on its main thread.
#pragma once

#include "pg/prelude.h"

namespace polarx {

// Returns a listening socket, non-blocking and close-on-exec, at RegistrySocketPath, or -1; then
// *code (for errcode) and `error` tell why.
int WorkerSocketListen(Oid database, int* code, char* error, size_t size);

// Removes socket and lock, if they are this process's. No ereport.
void WorkerSocketRemove();

}  // namespace polarx
