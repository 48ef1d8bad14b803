// What the pooler worker knows of the catalog, and how it keeps up with it; on its main thread.
#pragma once

#include "pg/prelude.h"

namespace polarx {

// Registers for changes of the catalog. Before the first WorkerReadCatalog.
void WorkerWatchCatalog();

// Reads all of it for the engine. False: others have locked it, as WorkerLockedReason says.
bool WorkerReadCatalog();
const char* WorkerLockedReason();

// After invalidations were accepted: reads the catalog if it has changed for the pooler, or if a
// session asks for it (`reload`). While it is locked it is tried again now and then.
void WorkerRefreshCatalog(bool reload);

// Answers the engine's questions; while the catalog is locked by saying so.
void WorkerAnswerMappings();

// `name` has NAMEDATALEN bytes: empty if there is no such role.
void WorkerFindRoleName(Oid role, char* name);

// The longest wait between two turns, in milliseconds.
long WorkerLongestWait();

}  // namespace polarx
