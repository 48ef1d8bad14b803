// One turn of the pooler worker: settings, catalog, questions of the engine, log; on its main
// thread. No transaction is open before or after each of these functions.
#include <algorithm>
#include <chrono>
#include <type_traits>

#include "core/time.h"

#include "pg/base/backends.h"
#include "pg/shared/lease_cells.h"
#include "pg/shared/lease_count.h"
#include "pg/worker/worker_catalog.h"
#include "pg/worker/worker_engine.h"
#include "pg/worker/worker_main.h"

#include "pg/prelude.h"

namespace polarx {
namespace {

// So often, the registry is told how many descriptors are in use.
constexpr Duration kReportInterval = std::chrono::seconds(1);
// So often, leases from earlier workers are counted, and whenever one has gone.
constexpr Duration kCountInterval = std::chrono::milliseconds(100);

void ReadSettings() {
  ProcessConfigFile(PGC_SIGHUP);
  WorkerRequire(EngineApplySettings());
}

// Nullptr: `role` has its name and `cells` its cells; else why the process is turned away.
const char* LookUpProcess(const AttachQuestion& question, char* role, LeaseCell** cells) {
  Oid process_database;
  Oid process_role;
  const BackendPlace backend = FindBackend(question.pid, &process_database, &process_role);
  if (backend == kNoPlace || process_database != MyDatabaseId) {
    return "peer is not a session of this database";
  }
  *cells = LeaseCellsOf(backend);
  WorkerFindRoleName(process_role, role);
  return nullptr;
}

void AnswerAttaches() {
  AttachQuestion question;
  while (EngineNextAttach(&question)) {
    char role[NAMEDATALEN];
    LeaseCell* cells = nullptr;
    const char* refusal = LookUpProcess(question, role, &cells);
    WorkerRequire(
        EngineAnswerAttach(question.session, refusal == nullptr ? role : nullptr, refusal, cells));
  }
}

// Who is in the way of these processes on the coordinator, and of those in turn. The server's
// function takes no lock but the lock manager's own, for a moment, and needs no transaction.
void AnswerLocalWaits() {
  constexpr int kMostProcesses = 1000;
  int count = 0;
  const int* asked = EngineNextLocalWaits(&count);
  if (asked == nullptr) {
    return;
  }
  const MemoryContext context =
      AllocSetContextCreate(TopMemoryContext, "polarx_pooler waits", ALLOCSET_DEFAULT_SIZES);
  const MemoryContext caller = MemoryContextSwitchTo(context);
  int* processes = static_cast<int*>(palloc(sizeof(int) * kMostProcesses));
  int known = Min(count, kMostProcesses);
  memcpy(processes, asked, sizeof(int) * known);
  RawLocalWait* waits = nullptr;
  int length = 0;
  for (int i = 0; i < known; ++i) {
    ArrayType* blockers =
        DatumGetArrayTypeP(DirectFunctionCall1(pg_blocking_pids, Int32GetDatum(processes[i])));
    const int added = ArrayGetNItems(ARR_NDIM(blockers), ARR_DIMS(blockers));
    const int* holders = reinterpret_cast<const int*>(ARR_DATA_PTR(blockers));
    const Size size = sizeof(RawLocalWait) * (length + added + 1);
    waits = static_cast<RawLocalWait*>(waits == nullptr ? palloc(size) : repalloc(waits, size));
    for (int j = 0; j < added; ++j) {
      waits[length++] = {processes[i], holders[j]};
      if (std::find(processes, processes + known, holders[j]) == processes + known &&
          known < kMostProcesses) {
        processes[known++] = holders[j];
      }
    }
  }
  WorkerRequire(EngineAnswerLocalWaits(waits, length));
  MemoryContextSwitchTo(caller);
  MemoryContextDelete(context);
}

void ReportLog() {
  static_assert(std::is_trivially_destructible_v<LogRecord>);
  LogRecord record;
  HoldInterrupts();  // a request to end waits for the main loop
  while (EngineNextLog(&record)) {
    const int level = record.severity == LogSeverity::kWarning ? WARNING
                      : record.severity == LogSeverity::kLog   ? LOG
                                                               : DEBUG1;
    ereport(level, (errmsg_internal("%s", record.message),
                    record.detail[0] != '\0' ? errdetail_internal("%s", record.detail) : 0));
  }
  ResumeInterrupts();
}

// Who holds a lease for long, and what that session does.
void ReportLongLeases() {
  RawLongLease lease;
  while (EngineNextLongLease(&lease)) {
    Oid database;
    Oid role;
    (void)FindBackend(lease.session_pid, &database, &role);
    char name[NAMEDATALEN];
    WorkerFindRoleName(role, name);
    StartTransactionCommand();  // for its memory
    const char* query = pgstat_get_backend_current_activity(lease.session_pid, false);
    HoldInterrupts();
    ereport(LOG, (errmsg("process %d has held a connection to datanode \"%s\" for %.1f s",
                         lease.session_pid, lease.node, lease.seconds),
                  errdetail_internal(
                      "Role \"%s\", remote user \"%s\", remote process %d, query: %s",
                      name, lease.remote_user, lease.remote_pid, query)));
    ResumeInterrupts();
    CommitTransactionCommand();
  }
}

void ReportDescriptors(Oid database) {
  static TimePoint next_report{};
  static int reported = -1;
  const TimePoint now = Now();
  if (now < next_report) {
    return;
  }
  if (const int used = EngineFdsUsed(); used != reported) {
    RegistryReportFds(database, used);
    next_report = now + kReportInterval;
    reported = used;
  }
}

}  // namespace

void WorkerCountSurvivors(uint64 generation) {
  static bool over = false;
  static TimePoint next_count{};
  static uint64 drops_seen = 0;
  const TimePoint now = Now();
  const uint64 drops = LeaseCountDrops();  // before the counting: later ones count next time
  if (over || (drops == drops_seen && now < next_count)) {
    return;
  }
  next_count = now + kCountInterval;
  drops_seen = drops;
  int length = 0;
  LeaseCount* counts = LeaseCountOthers(generation, &length);
  WorkerRequire(EngineSetSurvivors(counts, length));
  pfree(counts);
  over = length == 0;  // nothing new can come
}

void WorkerTurn(Oid database, uint64 generation) {
  if (ConfigReloadPending) {
    ConfigReloadPending = false;
    ReadSettings();
  }
  WorkerRequire(EngineReceive());
  const bool reload = EngineTakeReload();
  if (reload) {
    ReadSettings();
  }
  // What had been committed before a request came is seen before it is served.
  AcceptInvalidationMessages();
  WorkerRefreshCatalog(reload);
  WorkerCountSurvivors(generation);
  AnswerAttaches();
  WorkerAnswerMappings();
  AnswerLocalWaits();
  WorkerRequire(EngineServe());
  ReportLog();
  ReportLongLeases();
  ReportDescriptors(database);
}

}  // namespace polarx
