// The SQL functions that start, stop and show pooler workers; in a backend, on its only thread.
#include <cstring>
#include <utility>

#include "pg/base/guc.h"
#include "pg/shared/registry.h"
#include "pg/sql/worker_functions.h"

#include "pg/prelude.h"

namespace polarx {
namespace {

constexpr int kColumns = 9;

bool installed = false;  // by the transaction that is under way

// Returns null if there is nothing to show. A database that no worker could look into yet may well
// have no extension.
const char* StateWord(const WorkerEntry& entry) {
  if (entry.blocked_by != 0 && entry.pid == 0) {
    return "blocked";
  }
  switch (entry.state) {
    case WorkerState::kNone:
      return nullptr;
    case WorkerState::kWanted:
      return entry.failures == 0 ? "starting" : entry.known ? "failed" : nullptr;
    case WorkerState::kStarting:
      return "starting";
    case WorkerState::kReady:
      return "ready";
    case WorkerState::kStopping:
      return "stopping";
    case WorkerState::kStopped:
      return "stopped";
  }
  return nullptr;
}

void PutWorker(const WorkerEntry& entry, const ReturnSetInfo* result) {
  const char* state = StateWord(entry);
  const char* name = state != nullptr ? get_database_name(entry.database) : nullptr;
  if (name == nullptr) {
    return;
  }
  Datum values[kColumns] = {};
  bool nulls[kColumns] = {};
  NameData datname;
  namestrcpy(&datname, name);
  char path[MAXPGPATH];
  RegistrySocketPath(entry.database, path, sizeof(path));
  values[0] = ObjectIdGetDatum(entry.database);
  values[1] = NameGetDatum(&datname);
  values[2] = Int32GetDatum(entry.pid);
  values[3] = CStringGetTextDatum(state);
  values[4] = Int32GetDatum(entry.threads);
  values[5] = CStringGetTextDatum(psprintf("%s/%s", DataDir, path));
  values[6] = Int32GetDatum(entry.fds_used);
  values[7] = Int32GetDatum(entry.fds_limit);
  values[8] = TimestampTzGetDatum(entry.started_at);
  nulls[2] = nulls[8] = entry.pid == 0;
  nulls[4] = nulls[5] = nulls[6] = nulls[7] = entry.threads == 0;
  tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

[[noreturn]] void ThrowNotStarted(const WorkerEntry& entry) {
  const char* database = get_database_name(MyDatabaseId);
  ereport(ERROR, (errcode(ERRCODE_CANNOT_CONNECT_NOW),
                  errmsg("could not start the pooler worker of database \"%s\"",
                         database != nullptr ? database : ""),
                  entry.reason[0] != '\0' ? errdetail_internal("%s", entry.reason) : 0,
                  strstr(entry.reason, "max_worker_processes") != nullptr
                      ? errhint("Consider increasing max_worker_processes.")
                      : 0));
  pg_unreachable();
}

}  // namespace

void WorkerStartAfterEnd(bool committed) noexcept {
  if (std::exchange(installed, false) && committed) {
    RegistryRequestStart(MyDatabaseId, false);
  }
}

}  // namespace polarx

// start() bool: true if it did not run before. 57P03 if it cannot be started.
POLARX_FUNCTION(polarx_start) {
  (void)fcinfo;
  polarx::RegistryRequire();
  polarx::WorkerEntry entry;
  if (polarx::RegistryLookup(MyDatabaseId, &entry) && entry.state == polarx::WorkerState::kReady) {
    PG_RETURN_BOOL(false);
  }
  polarx::RegistryRequestStart(MyDatabaseId, true);
  const int limit_ms = polarx::parameters.pooler_connect_timeout * 1000;
  if (!polarx::RegistryWaitReady(MyDatabaseId, limit_ms, &entry)) {
    polarx::ThrowNotStarted(entry);
  }
  PG_RETURN_BOOL(true);
}

// stop() bool: true if it ran.
POLARX_FUNCTION(polarx_stop) {
  (void)fcinfo;
  polarx::RegistryRequire();
  PG_RETURN_BOOL(polarx::RegistryStop(MyDatabaseId, true));
}

// installed() void: the last call of the extension's script.
POLARX_FUNCTION(polarx_installed) {
  (void)fcinfo;
  polarx::installed = polarx::RegistryExists();
  PG_RETURN_VOID();
}

// show_workers(): one row a database that has a worker, or should have.
POLARX_FUNCTION(polarx_show_workers) {
  polarx::RegistryRequire();
  InitMaterializedSRF(fcinfo, 0);
  const size_t size = sizeof(polarx::WorkerEntry) * polarx::kMaxDatabases;
  auto* entries = static_cast<polarx::WorkerEntry*>(palloc(size));
  const int count = polarx::RegistryList(entries, polarx::kMaxDatabases);
  for (int i = 0; i < count; i++) {
    polarx::PutWorker(entries[i], reinterpret_cast<ReturnSetInfo*>(fcinfo->resultinfo));
  }
  return static_cast<Datum>(0);
}
