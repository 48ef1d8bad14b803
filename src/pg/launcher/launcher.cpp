// The launcher starts the pooler workers of all databases, one after the other; its own process,
// main thread.
#include <unistd.h>

#include <cstring>

#include "pg/base/background.h"
#include "pg/launcher/launcher.h"
#include "pg/shared/registry.h"

#include "pg/prelude.h"

extern "C" {
PGDLLEXPORT void polarx_launcher_main(Datum argument);
}

namespace polarx {
namespace {

// So long, a start keeps the next one waiting.
constexpr int kStartLimitMs = 5000;
constexpr int kRestartSeconds = 1;
// So often, a pg_database that others have locked is tried again.
constexpr int kLookAgainMs = 250;

// A worker that was registered and has not been seen to end.
struct Watched {
  Oid database;
  BackgroundWorkerHandle* handle;
};

List* watched = NIL;  // of Watched*, in TopMemoryContext
Oid starting = InvalidOid;
TimestampTz starting_until = 0;
bool out_of_workers = false;

void FillWorker(BackgroundWorker* worker, const char* function) {
  memset(worker, 0, sizeof(*worker));
  worker->bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
  worker->bgw_start_time = BgWorkerStart_ConsistentState;  // hot standby too
  strlcpy(worker->bgw_library_name, "polarx_pooler", BGW_MAXLEN);
  strlcpy(worker->bgw_function_name, function, BGW_MAXLEN);
}

bool IsConnectable(const FormData_pg_database* row) {
  return row->datallowconn && row->datconnlimit != DATCONNLIMIT_INVALID_DB;
}

extern "C" void RequestAll(void* /*argument*/) {
  Relation relation = table_open(DatabaseRelationId, AccessShareLock);
  SysScanDesc scan = systable_beginscan(relation, InvalidOid, false, nullptr, 0, nullptr);
  for (;;) {
    HeapTuple tuple = systable_getnext(scan);
    if (!HeapTupleIsValid(tuple)) {
      break;
    }
    const auto* row = reinterpret_cast<Form_pg_database>(GETSTRUCT(tuple));
    if (IsConnectable(row)) {
      RegistryRequestStart(row->oid, false);
    }
  }
  systable_endscan(scan);
  table_close(relation, AccessShareLock);
}

// Does nobody drop or move the database? In recovery that is replayed piece by piece: its files may
// have gone while its row is still there.
bool IsInPlace(const FormData_pg_database* row) {
  LOCKTAG tag;
  SET_LOCKTAG_OBJECT(tag, InvalidOid, DatabaseRelationId, row->oid, 0);
  if (LockAcquire(&tag, AccessShareLock, false, true) == LOCKACQUIRE_NOT_AVAIL) {
    return false;
  }
  char* path = GetDatabasePath(row->oid, row->dattablespace);
  const bool there = access(path, F_OK) == 0;
  pfree(path);
  LockRelease(&tag, AccessShareLock, false);
  return there;
}

struct Candidate {
  Oid database;
  const char* refusal;  // why no worker can be started; nullptr: it can
  bool for_ever;
};

extern "C" void LookAt(void* argument) {
  auto* candidate = static_cast<Candidate*>(argument);
  HeapTuple tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(candidate->database));
  const auto* row =
      HeapTupleIsValid(tuple) ? reinterpret_cast<Form_pg_database>(GETSTRUCT(tuple)) : nullptr;
  if (row == nullptr || !IsConnectable(row)) {
    candidate->refusal = "the database does not exist or allows no connections";
    candidate->for_ever = true;
  } else if (RecoveryInProgress() && !IsInPlace(row)) {
    candidate->refusal = "the database is dropped or moved";
  }
  if (row != nullptr) {
    ReleaseSysCache(tuple);
  }
}

// False: `database` gets no worker now, and the registry knows why.
bool MayStart(Oid database) {
  Candidate candidate = {database, nullptr, false};
  char reason[256];
  if (!BackgroundRead(kLockLimitMs, LookAt, &candidate, reason, sizeof(reason))) {
    candidate.refusal = reason;
  }
  if (candidate.refusal != nullptr) {
    RegistryStartFailed(database, !candidate.for_ever, candidate.refusal);
  }
  return candidate.refusal == nullptr;
}

void Forget(int index) {
  auto* old = static_cast<Watched*>(list_nth(watched, index));
  pfree(old->handle);
  pfree(old);
  watched = list_delete_nth_cell(watched, index);
}

void Watch(Oid database, BackgroundWorkerHandle* handle) {
  for (int i = list_length(watched) - 1; i >= 0; i--) {
    if (static_cast<Watched*>(list_nth(watched, i))->database == database) {
      Forget(i);
    }
  }
  auto* entry = static_cast<Watched*>(palloc(sizeof(Watched)));
  *entry = {database, handle};
  watched = lappend(watched, entry);
}

// Does the process that was registered last for the database still have its place?
bool IsWatched(Oid database) {
  for (int i = 0; i < list_length(watched); i++) {
    if (static_cast<Watched*>(list_nth(watched, i))->database == database) {
      return true;
    }
  }
  return false;
}

// Finds workers that have ended; some have not claimed their entry.
void CheckWatched() {
  for (int i = list_length(watched) - 1; i >= 0; i--) {
    const auto* entry = static_cast<Watched*>(list_nth(watched, i));
    pid_t pid = 0;
    if (GetBackgroundWorkerPid(entry->handle, &pid) == BGWH_STOPPED) {
      RegistryStartFailed(entry->database, true, "its process ended before it began to work");
      Forget(i);
    }
  }
}

// Once, however many databases wait for a slot and whoever gets one that comes free.
void ReportSlots(bool available) {
  if (!available && !out_of_workers) {
    ereport(WARNING,
            (errcode(ERRCODE_INSUFFICIENT_RESOURCES),
             errmsg("could not start a pooler worker: out of background worker slots"),
             errdetail("Each database with the extension takes one, and the launcher one more."),
             errhint("Consider increasing the configuration parameter \"max_worker_processes\".")));
  } else if (available && out_of_workers) {
    ereport(LOG, (errmsg("no pooler worker waits for a background worker slot any more")));
  }
  out_of_workers = !available;
}

// False: the start is over already.
bool Register(Oid database) {
  BackgroundWorker worker;
  FillWorker(&worker, "polarx_worker_main");
  snprintf(worker.bgw_name, BGW_MAXLEN, "polarx_pooler worker: %u", database);
  strlcpy(worker.bgw_type, "polarx_pooler worker", BGW_MAXLEN);
  worker.bgw_restart_time = BGW_NEVER_RESTART;
  worker.bgw_main_arg = ObjectIdGetDatum(database);
  worker.bgw_notify_pid = MyProcPid;
  const MemoryContext context = MemoryContextSwitchTo(TopMemoryContext);
  BackgroundWorkerHandle* handle = nullptr;
  const bool registered = RegisterDynamicBackgroundWorker(&worker, &handle);
  if (registered) {
    Watch(database, handle);
  }
  MemoryContextSwitchTo(context);
  if (!registered) {
    ReportSlots(false);
    RegistryStartFailed(database, true,
                        "all background worker slots are in use (max_worker_processes)");
  }
  return registered;
}

// Is the last start still under way? Where there was nothing to do, it is until the process has
// given its slot back: the next one may need it.
bool StartUnderWay(TimestampTz now) {
  WorkerEntry entry;
  return OidIsValid(starting) && now < starting_until && RegistryLookup(starting, &entry) &&
         (entry.state == WorkerState::kStarting ||
          (entry.state != WorkerState::kReady && IsWatched(starting)));
}

// Returns when to look again if nothing happens.
TimestampTz StartWorkers() {
  CheckWatched();
  TimestampTz now = GetCurrentTimestamp();
  if (StartUnderWay(now)) {
    return starting_until;
  }
  starting = InvalidOid;
  TimestampTz next_at = DT_NOEND;
  for (;;) {
    const Oid database = RegistryNextDue(now, &next_at);
    if (!OidIsValid(database)) {
      if (next_at == DT_NOEND) {
        ReportSlots(true);
      }
      return next_at;
    }
    if (MayStart(database) && Register(database)) {
      starting = database;
      starting_until = TimestampTzPlusMilliseconds(now, kStartLimitMs);
      return starting_until;
    }
    now = GetCurrentTimestamp();
  }
}

void WaitUntil(TimestampTz next_at) {
  int events = WL_LATCH_SET | WL_EXIT_ON_PM_DEATH;
  long timeout = -1;
  if (next_at != DT_NOEND) {
    events |= WL_TIMEOUT;
    timeout = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), next_at);
  }
  (void)WaitLatch(MyLatch, events, timeout, WaitEventOf(Wait::kLauncherMain));
  ResetLatch(MyLatch);
  if (ShutdownRequestPending) {
    proc_exit(1);  // 0 would mean: never again
  }
  CHECK_FOR_INTERRUPTS();
  if (ConfigReloadPending) {
    ConfigReloadPending = false;
    ProcessConfigFile(PGC_SIGHUP);
  }
}

}  // namespace

void RegisterLauncher() {
  if (!IsPostmasterEnvironment) {
    RegistrySetNoLauncher("background workers do not run in single-user mode");
    return;
  }
  if (IsBinaryUpgrade) {
    RegistrySetNoLauncher("pooler workers do not run while the server is upgraded");
    return;
  }
  BackgroundWorker worker;
  FillWorker(&worker, "polarx_launcher_main");
  strlcpy(worker.bgw_name, "polarx_pooler launcher", BGW_MAXLEN);
  strlcpy(worker.bgw_type, "polarx_pooler launcher", BGW_MAXLEN);
  worker.bgw_restart_time = kRestartSeconds;
  RegisterBackgroundWorker(&worker);
  if (!IsRegisteredWorker(worker.bgw_function_name)) {
    RegistrySetNoLauncher("max_worker_processes leaves no place for the launcher of the pooler "
                          "workers");
  }
}

}  // namespace polarx

void polarx_launcher_main(Datum /*argument*/) {
  using namespace polarx;
  BackgroundPrepare();
  BackgroundWorkerUnblockSignals();
  BackgroundConnect(InvalidOid);
  RegistrySetLauncher();
  bool requested = false;
  for (;;) {
    char reason[256];
    requested = requested ||
                BackgroundRead(kLockLimitMs, RequestAll, nullptr, reason, sizeof(reason));
    const TimestampTz next_at = StartWorkers();
    const TimestampTz again_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), kLookAgainMs);
    WaitUntil(requested ? next_at : Min(next_at, again_at));
  }
}
