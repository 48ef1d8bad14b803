// One turn of the pooler worker: settings, catalog, questions of the engine, log; on its main
// thread. No transaction is open before or after each of these functions.
#include <chrono>
#include <type_traits>

#include "core/time.h"

#include "pg/base/backends.h"
#include "pg/base/catalog.h"
#include "pg/shared/lease_cells.h"
#include "pg/shared/lease_count.h"
#include "pg/worker/worker_engine.h"
#include "pg/worker/worker_main.h"

#include "pg/prelude.h"

namespace polarx {
namespace {

// So often, the registry is told how many descriptors are in use.
constexpr Duration kReportInterval = std::chrono::seconds(1);
// So often, leases from earlier workers are counted, and whenever one has gone.
constexpr Duration kCountInterval = std::chrono::milliseconds(100);

bool catalog_changed = false;
MemoryContext catalog_context = nullptr;  // of one reading

extern "C" void NoteCatalogChange(Datum /*arg*/, int /*cache*/, uint32 /*hash*/) {
  catalog_changed = true;
}

void Require(bool done) {
  if (!done) {
    WorkerFail(ERRCODE_OUT_OF_MEMORY, EngineError());
  }
}

void ReadSettings() {
  ProcessConfigFile(PGC_SIGHUP);
  Require(EngineApplySettings());
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
  StartTransactionCommand();
  const char* name = GetUserNameFromId(process_role, true);
  strlcpy(role, name != nullptr ? name : "", NAMEDATALEN);
  CommitTransactionCommand();
  return nullptr;
}

void AnswerAttaches() {
  AttachQuestion question;
  while (EngineNextAttach(&question)) {
    char role[NAMEDATALEN];
    LeaseCell* cells = nullptr;
    const char* refusal = LookUpProcess(question, role, &cells);
    Require(
        EngineAnswerAttach(question.session, refusal == nullptr ? role : nullptr, refusal, cells));
  }
}

void AnswerMappings() {
  RawQuestion question;
  while (EngineNextMapping(&question)) {
    Require(EngineAnswerMapping(CatalogReadOne(catalog_context, question)));
    MemoryContextReset(catalog_context);
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
    StartTransactionCommand();
    const char* name = GetUserNameFromId(role, true);
    const char* query = pgstat_get_backend_current_activity(lease.session_pid, false);
    HoldInterrupts();
    ereport(LOG, (errmsg("process %d has held a connection to datanode \"%s\" for %.1f s",
                         lease.session_pid, lease.node, lease.seconds),
                  errdetail_internal(
                      "Role \"%s\", remote user \"%s\", remote process %d, query: %s",
                      name != nullptr ? name : "", lease.remote_user, lease.remote_pid, query)));
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
  Require(EngineSetSurvivors(counts, length));
  pfree(counts);
  over = length == 0;  // nothing new can come
}

void WorkerWatchCatalog() {
  for (const int cache : {FOREIGNSERVEROID, FOREIGNDATAWRAPPEROID, USERMAPPINGOID, AUTHOID}) {
    CacheRegisterSyscacheCallback(cache, NoteCatalogChange, static_cast<Datum>(0));
  }
  catalog_context =
      AllocSetContextCreate(TopMemoryContext, "polarx_pooler catalog", ALLOCSET_DEFAULT_SIZES);
}

void WorkerReadCatalog() {
  // Before the reading: what changes during it is read next time.
  catalog_changed = false;
  int count = 0;
  const RawQuestion* asked = EngineAsked(&count);
  Require(asked != nullptr);
  const RawCatalog* catalog = CatalogRead(catalog_context, asked, count);
  if (!catalog->installed) {
    WorkerFinishUninstalled();
  }
  Require(EngineSetCatalog(catalog));
  MemoryContextReset(catalog_context);
  pgstat_report_stat(true);
}

void WorkerTurn(Oid database, uint64 generation) {
  if (ConfigReloadPending) {
    ConfigReloadPending = false;
    ReadSettings();
  }
  Require(EngineReceive());
  const bool reload = EngineTakeReload();
  if (reload) {
    ReadSettings();
  }
  // What had been committed before a request came is seen before it is served.
  AcceptInvalidationMessages();
  if (catalog_changed || reload) {
    WorkerReadCatalog();
  }
  WorkerCountSurvivors(generation);
  AnswerAttaches();
  AnswerMappings();
  Require(EngineServe());
  ReportLog();
  ReportLongLeases();
  ReportDescriptors(database);
}

}  // namespace polarx
