// The life of the pooler worker of one database: set up, wait, end; its main thread.
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "pg/base/background.h"
#include "pg/base/catalog.h"
#include "pg/base/guc.h"
#include "pg/shared/lease_cells.h"
#include "pg/worker/worker_catalog.h"
#include "pg/worker/worker_engine.h"
#include "pg/worker/worker_main.h"
#include "pg/worker/worker_socket.h"

#include "pg/prelude.h"

extern "C" {
PGDLLEXPORT void polarx_worker_main(Datum argument);
}

namespace polarx {
namespace {

constexpr rlim_t kMostDescriptors = 65536;
// Descriptors that are left to the server's own code in this process.
constexpr int kServerDescriptors = 100;

Oid database = InvalidOid;
NameData database_name;
WorkerEnd end = WorkerEnd::kFailed;
char end_reason[256] = "it ended unexpectedly; the server log tells why";
bool thread_stuck = false;
bool was_ready = false;

// Registered first, hence the last to run: static destructors would run under the stuck thread.
extern "C" void LeaveAtOnce(int code, Datum /*arg*/) {
  if (thread_stuck) {
    _exit(code);
  }
}

extern "C" void CleanUp(int /*code*/, Datum /*arg*/) {
  thread_stuck = !EngineStop();
  WorkerSocketRemove();
  RegistryGone(database, end, end_reason);
}

// Returns how many descriptors the pooler may have.
int RaiseDescriptorLimit() {
  rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
    return max_files_per_process - kServerDescriptors;
  }
  rlimit raised = limit;
  raised.rlim_cur = std::max(limit.rlim_cur, std::min(limit.rlim_max, kMostDescriptors));
  if (setrlimit(RLIMIT_NOFILE, &raised) != 0) {
    raised = limit;
  }
  return static_cast<int>(std::min(raised.rlim_cur, kMostDescriptors)) - kServerDescriptors;
}

[[noreturn]] void WorkerFailUnread(const char* reason) {
  char text[sizeof(end_reason)];
  snprintf(text, sizeof(text), "could not read the system catalogs: %s", reason);
  WorkerFail(ERRCODE_LOCK_NOT_AVAILABLE, text);
}

extern "C" void LookAround(void* argument) {
  *static_cast<bool*>(argument) = CatalogInstalled();
  const char* name = get_database_name(database);
  namestrcpy(&database_name, name != nullptr ? name : "");
}

void Connect() {
  BackgroundConnect(database);
  bool installed = false;
  char reason[sizeof(end_reason)];
  if (!BackgroundRead(kLockLimitMs, LookAround, &installed, reason, sizeof(reason))) {
    WorkerFailUnread(reason);
  }
  if (!installed) {
    WorkerFinishUninstalled();
  }
  pgstat_report_activity(STATE_IDLE, nullptr);
}

void StartEngine(uint64 generation) {
  int code = ERRCODE_INTERNAL_ERROR;
  char error[sizeof(end_reason)];
  const int listener = WorkerSocketListen(database, &code, error, sizeof(error));
  if (listener < 0) {
    WorkerFail(code, error);
  }
  const int fd_limit = RaiseDescriptorLimit();
  if (!EngineStart(NameStr(database_name), generation, fd_limit, listener,
                   NodeCellsOf(MyPlace()))) {
    WorkerFail(ERRCODE_INSUFFICIENT_RESOURCES, EngineError());
  }
  WorkerCountSurvivors(generation);
  WorkerWatchCatalog();
  if (!WorkerReadCatalog()) {
    WorkerFailUnread(WorkerLockedReason());
  }
  if (!RegistryReady(database, parameters.pooler_scale_factor, fd_limit)) {
    WorkerFinish(WorkerEnd::kTerminated, "it was told to end");
  }
  was_ready = true;
  ereport(LOG, (errmsg("pooler worker of database \"%s\" is ready", NameStr(database_name))));
}

// Nobody has done anything wrong, so the log does not speak of it. Once the database is there again
// the launcher starts the next worker; a dropped one it forgets.
[[noreturn]] void WorkerLeave() {
  HoldInterrupts();
  end = WorkerEnd::kTerminated;
  strlcpy(end_reason, "its database is dropped or moved", sizeof(end_reason));
  ereport(DEBUG1, (errmsg_internal("pooler worker of database \"%s\" is shutting down",
                                   NameStr(database_name)),
                   errdetail_internal("%s", end_reason)));
  proc_exit(0);
}

[[noreturn]] void Work(uint64 generation) {
  WaitEventSet* set = MakeWaitEventSet(3);
  AddWaitEventToSet(set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, nullptr);
  AddWaitEventToSet(set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, nullptr, nullptr);
  AddWaitEventToSet(set, WL_SOCKET_READABLE, EngineFd(), nullptr, nullptr);
  for (;;) {
    EngineLookOut();
    WaitEvent events[3];
    (void)WaitEventSetWait(set, EngineTimeout(WorkerLongestWait()), events, lengthof(events),
                           WaitEventOf(Wait::kWorkerMain));
    ResetLatch(MyLatch);
    if (BackgroundIsInTheWay()) {
      WorkerLeave();
    }
    if (ShutdownRequestPending) {
      WorkerFinish(WorkerEnd::kTerminated, "it was terminated");
    }
    CHECK_FOR_INTERRUPTS();
    WorkerTurn(database, generation);
  }
}

// Leaves the error's message to sessions that find no worker.
void Run(uint64 generation) {
  const MemoryContext context = CurrentMemoryContext;
  PG_TRY();
  {
    Connect();
    StartEngine(generation);
    Work(generation);
  }
  PG_CATCH();
  {
    MemoryContextSwitchTo(context);
    const ErrorData* error = CopyErrorData();
    BackgroundReason(error, end_reason, sizeof(end_reason));
    PG_RE_THROW();
  }
  PG_END_TRY();
}

}  // namespace

void WorkerFinish(WorkerEnd kind, const char* reason) {
  end = kind;
  strlcpy(end_reason, reason, sizeof(end_reason));
  if (was_ready) {
    HoldInterrupts();  // a report would end the process its own way
    ereport(LOG, (errmsg("pooler worker of database \"%s\" is shutting down",
                         NameStr(database_name)),
                  errdetail_internal("%s", end_reason)));
  }
  proc_exit(0);
}

void WorkerFinishUninstalled() {
  WorkerFinish(WorkerEnd::kFinished, "extension polarx_pooler is not installed in this database");
}

void WorkerRequire(bool done) {
  if (!done) {
    WorkerFail(ERRCODE_OUT_OF_MEMORY, EngineError());
  }
}

void WorkerFail(int code, const char* reason) {
  strlcpy(end_reason, reason, sizeof(end_reason));
  ereport(FATAL, (errcode(code), errmsg_internal("%s", reason)));
  pg_unreachable();
}

}  // namespace polarx

void polarx_worker_main(Datum argument) {
  polarx::database = DatumGetObjectId(argument);
  on_proc_exit(polarx::LeaveAtOnce, 0);
  before_shmem_exit(polarx::CleanUp, 0);
  polarx::BackgroundPrepare();
  BackgroundWorkerUnblockSignals();
  uint64 generation = 0;
  if (!polarx::RegistryClaim(polarx::database, &generation)) {
    proc_exit(0);
  }
  polarx::Run(generation);
}
