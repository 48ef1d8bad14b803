// One turn of the pooler worker: settings, catalog, questions of the engine, log; on its main
// thread. No transaction is open before or after each of these functions.
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
  WorkerRequire(EngineServe());
  ReportLog();
  ReportLongLeases();
  ReportDescriptors(database);
}

}  // namespace polarx
