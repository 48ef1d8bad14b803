// The pooler workers of all databases in shared memory: who runs, in which state, who may start.
// Every process of the server, on its main thread; one LWLock guards all entries, one condition
// variable tells of changes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "pg/prelude.h"

namespace polarx {

enum class WorkerState : int {
  kNone,      // nothing runs; a start may be asked for
  kWanted,    // somebody asked for a start: the launcher's turn
  kStarting,  // registered with the postmaster, or on its way to "ready"
  kReady,     // serves sessions
  kStopping,  // told to end
  kStopped,   // ended by stop(): start() or a server restart lifts it
};

// A copy of one database's entry.
struct WorkerEntry {
  Oid database;
  WorkerState state;
  pid_t pid;               // 0: none
  uint64 generation;       // of the running or last worker; never repeats while the server lives
  bool known;              // the extension is there: a session asked, or a worker came to work
  pid_t blocked_by;        // backend whose DROP DATABASE or the like keeps it down; 0: none
  int threads;
  int fds_used;
  int fds_limit;
  TimestampTz started_at;
  int failures;            // starts that failed in a row
  TimestampTz retry_at;    // not before
  char reason[256];        // why the last start failed or the worker ended; "" if none
};

inline constexpr int kMaxDatabases = 1024;

// _PG_init while preloading: reserves the memory and chains the hooks.
void RegistryReserve();
// Is the shared memory there, that is: was the library preloaded?
bool RegistryExists();
// 55000 with a hint if it was not.
void RegistryRequire();

// False: no entry for that database (then nothing was ever asked of it).
bool RegistryLookup(Oid database, WorkerEntry* entry);
// Copies all entries; returns how many.
int RegistryList(WorkerEntry* entries, int max);

// Asks the launcher for a worker of `database`, unless one is there or it is stopped (`force` lifts
// "stopped"). While one ends or is blocked, another one comes afterwards. Wakes the launcher. A
// start that is held off after failures is tried once a second while it is asked for. Where no
// launcher will ever run the start has failed at once. No ereport.
void RegistryRequestStart(Oid database, bool force);

// Waits until the worker of `database` is ready, at most `timeout_ms`, interruptibly. False: it is
// not, and *entry says why (state, reason, blocked_by); at once if nothing was asked for, its start
// keeps failing, or no launcher will ever run.
bool RegistryWaitReady(Oid database, int timeout_ms, WorkerEntry* entry);

// Ends the worker of `database` and waits until its process has left the ProcArray, interruptibly;
// afterwards the state is kStopped (`hold`) or kNone. True if one was running or starting.
bool RegistryStop(Oid database, bool hold);

// Keeps the worker of `database` from starting until RegistryUnblock, RegistryUnblockAll or this
// backend's exit; stops it first, interruptibly. Several backends may block one database, and one
// backend may do so several times.
void RegistryBlock(Oid database);
// Undoes one RegistryBlock of this backend. Where nobody else blocks and a worker was there or was
// asked for meanwhile, another one is started. No ereport.
void RegistryUnblock(Oid database);
// The database is dropped: what was remembered of it goes. No ereport.
void RegistryForget(Oid database);
// All of them.
void RegistryUnblockAll();

// --- the launcher's and the worker's side ------------------------------------------------------
// _PG_init while preloading: no launcher will ever run, for this reason (a literal).
void RegistrySetNoLauncher(const char* reason);
void RegistrySetLauncher();  // this process is the launcher: its latch is set by requests and exits
// Takes over a start as the worker: false if it may not run (not asked for, blocked, another is
// there). Sets pid and a new generation.
bool RegistryClaim(Oid database, uint64* generation);
// False: it was told to end meanwhile.
bool RegistryReady(Oid database, int threads, int fds_limit);
void RegistryReportFds(Oid database, int fds_used);

enum class WorkerEnd {
  kFailed,      // started again: at once if it has run for a while, else with back-off
  kTerminated,  // by a signal: started again at once, unless stop() or the like sent it
  kFinished,    // there is nothing to do in this database
};
// The worker ends; a no-op unless the entry still holds this process's pid. `reason` may be NULL.
void RegistryGone(Oid database, WorkerEnd end, const char* reason);

// Launcher: the next database whose start is due at `now`; its state becomes kStarting. Invalid
// oid: none, and *next_at is when the next one will be due (DT_NOEND: none).
Oid RegistryNextDue(TimestampTz now, TimestampTz* next_at);
// Launcher: the start did not come to a claim. `retry`: again, with back-off; else it is forgotten.
void RegistryStartFailed(Oid database, bool retry, const char* reason);

// "pg_stat_tmp/.s.PGPOOL.<database oid>.<port>", relative to the data directory.
void RegistrySocketPath(Oid database, char* path, size_t size);

}  // namespace polarx
