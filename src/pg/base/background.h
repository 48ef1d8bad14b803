// What the launcher and the pooler workers do alike as background processes of the server: their
// signals, the settings that they do not inherit, and reading of catalogs without waiting for
// whoever holds a lock on them. On their main threads.
#pragma once

#include <cstddef>

#include "pg/prelude.h"

namespace polarx {

// Such a process never waits longer than this for one lock.
inline constexpr int kLockLimitMs = 100;
// Where a lock was held a moment ago.
inline constexpr int kLockGlanceMs = 1;

// First of all, before the process connects to a database and before its signals are unblocked:
// SIGTERM sets ShutdownRequestPending, SIGHUP ConfigReloadPending; neither the configuration file
// nor a database or role changes how the process runs its own transactions.
void BackgroundPrepare();

// Connects to the database, or to the shared catalogs alone (InvalidOid). Throws where others hold
// a lock that is needed for it; ends the process where there is no such database.
void BackgroundConnect(Oid database);

// Has the server, in recovery, told this process to leave a database that is dropped or moved?
bool BackgroundIsInTheWay();

// Runs `body` in a transaction of its own, with a snapshot and in that transaction's memory
// context; each wait for a lock is over after `lock_limit_ms`. False: the server would not let it
// finish now, mostly since others hold a lock, and `reason` tells why; the process may try again.
// Other errors are thrown on.
bool BackgroundRead(int lock_limit_ms, void (*body)(void* argument), void* argument, char* reason,
                    size_t size);

// What is told to others of an error of these functions.
void BackgroundReason(const ErrorData* error, char* reason, size_t size);

}  // namespace polarx
