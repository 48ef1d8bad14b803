// The parts of the pooler worker's main thread: its life, and what it does in each turn.
#pragma once

#include "pg/shared/registry.h"

#include "pg/prelude.h"

namespace polarx {

// Both end the process; `reason` is what sessions that find no worker are told.
[[noreturn]] void WorkerFinish(WorkerEnd end, const char* reason);
[[noreturn]] void WorkerFail(int code, const char* reason);  // FATAL in the log as well

void WorkerRequire(bool done);  // of the engine: the worker fails if it is not

// The extension or its wrapper is not there (any more).
[[noreturn]] void WorkerFinishUninstalled();

// What is to be done between two waits.
void WorkerTurn(Oid database, uint64 generation);
// Tells the engine what sessions hold from workers of other generations, now and then and as long
// as there is something. Before the first turn as well.
void WorkerCountSurvivors(uint64 generation);

}  // namespace polarx
