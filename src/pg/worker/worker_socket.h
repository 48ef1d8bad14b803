// The pooler worker's listening Unix socket and the lock that says whose it is; on its main thread.
#pragma once

#include "pg/prelude.h"

namespace polarx {

// A listening socket, non-blocking and close-on-exec, at RegistrySocketPath. -1: *code (for
// errcode) and `error` tell why.
int WorkerSocketListen(Oid database, int* code, char* error, size_t size);

// Removes socket and lock, if this process has them. No ereport.
void WorkerSocketRemove();

}  // namespace polarx
