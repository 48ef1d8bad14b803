// The pooler worker reads the catalog as far as it has changed, and never waits for whoever has
// locked it: meanwhile the pooler works with the catalog in hand. On the worker's main thread; no
// transaction is open before or after each of these functions.
#include <chrono>

#include "core/time.h"

#include "pg/base/background.h"
#include "pg/base/catalog.h"
#include "pg/worker/known_roles.h"
#include "pg/worker/worker_catalog.h"
#include "pg/worker/worker_engine.h"
#include "pg/worker/worker_main.h"

#include "pg/prelude.h"

namespace polarx {
namespace {

// An idle worker looks for invalidations that often.
constexpr long kLongestWaitMs = 1000;
// So often, a catalog that others have locked is tried again.
constexpr std::chrono::milliseconds kReadAgain(250);

MemoryContext catalog_context = nullptr;  // of one reading
bool catalog_changed = false;             // the catalog in hand is not the last one
bool catalog_locked = false;              // and could not be read
TimePoint read_again_at{};
char locked_reason[256] = "";

extern "C" void NoteCatalogChange(Datum /*arg*/, int /*cache*/, uint32 /*hash*/) {
  catalog_changed = true;
}

// `body` may read the catalog; false: it is locked.
bool TryRead(void (*body)(void* argument), void* argument) {
  char reason[sizeof(locked_reason)] = "";
  const bool done = BackgroundRead(catalog_locked ? kLockGlanceMs : kLockLimitMs, body, argument,
                                   reason, sizeof(reason));
  if (!done) {
    strlcpy(locked_reason, reason, sizeof(locked_reason));
  }
  return done;
}

// Nobody waits: the pooler works with the catalog in hand.
void NoteLocked() {
  catalog_changed = true;
  read_again_at = Now() + kReadAgain;
  if (!catalog_locked) {
    catalog_locked = true;
    HoldInterrupts();
    ereport(LOG, (errcode(ERRCODE_LOCK_NOT_AVAILABLE),
                  errmsg("pooler worker cannot read the system catalogs and goes on with what it "
                         "has read before"),
                  errdetail_internal("%s", locked_reason)));
    ResumeInterrupts();
  }
}

void NoteRead() {
  if (catalog_locked) {
    catalog_locked = false;
    HoldInterrupts();
    ereport(LOG, (errmsg("pooler worker reads the system catalogs again")));
    ResumeInterrupts();
  }
}

struct RoleName {
  Oid role;
  char* name;  // of NAMEDATALEN bytes
};

extern "C" void LookUpRoleName(void* argument) {
  const auto* wanted = static_cast<const RoleName*>(argument);
  const char* name = GetUserNameFromId(wanted->role, true);
  strlcpy(wanted->name, name != nullptr ? name : "", NAMEDATALEN);
}

struct Reading {
  const RawQuestion* asked;
  int count;
  RawCatalog* catalog;  // the result
};

extern "C" void ReadOne(void* argument) {
  auto* reading = static_cast<Reading*>(argument);
  MemoryContextSwitchTo(catalog_context);
  reading->catalog = CatalogReadOne(*reading->asked);
  KnownRolesRemember(reading->catalog, false);
}

extern "C" void ReadAll(void* argument) {
  auto* reading = static_cast<Reading*>(argument);
  MemoryContextSwitchTo(catalog_context);
  reading->catalog = CatalogRead(reading->asked, reading->count);
  KnownRolesRemember(reading->catalog, true);
}

extern "C" void CompareRoles(void* argument) {
  *static_cast<bool*>(argument) = KnownRolesDiffer();
}

}  // namespace

void WorkerWatchCatalog() {
  for (const int cache : {FOREIGNSERVEROID, FOREIGNDATAWRAPPEROID, USERMAPPINGOID}) {
    CacheRegisterSyscacheCallback(cache, NoteCatalogChange, static_cast<Datum>(0));
  }
  KnownRolesWatch();
  catalog_context =
      AllocSetContextCreate(TopMemoryContext, "polarx_pooler catalog", ALLOCSET_DEFAULT_SIZES);
}

bool WorkerReadCatalog() {
  // Before the reading: what changes during it is read next time.
  catalog_changed = false;
  KnownRolesBeginReading();
  Reading reading = {nullptr, 0, nullptr};
  reading.asked = EngineAsked(&reading.count);
  WorkerRequire(reading.asked != nullptr);
  if (!TryRead(ReadAll, &reading)) {
    MemoryContextReset(catalog_context);
    catalog_changed = true;
    return false;
  }
  if (!reading.catalog->installed) {
    WorkerFinishUninstalled();
  }
  WorkerRequire(EngineSetCatalog(reading.catalog));
  MemoryContextReset(catalog_context);
  NoteRead();
  pgstat_report_stat(true);
  return true;
}

void WorkerRefreshCatalog(bool reload) {
  if (KnownRolesReported() && !catalog_changed) {
    bool differ = false;
    if (!TryRead(CompareRoles, &differ)) {
      NoteLocked();
    }
    catalog_changed = catalog_changed || differ;
  }
  const bool due = catalog_changed && (!catalog_locked || Now() >= read_again_at);
  if ((due || reload) && !WorkerReadCatalog()) {
    NoteLocked();
  }
}

const char* WorkerLockedReason() { return locked_reason; }

long WorkerLongestWait() { return catalog_locked ? kReadAgain.count() : kLongestWaitMs; }

void WorkerAnswerMappings() {
  RawQuestion question;
  while (EngineNextMapping(&question)) {
    Reading reading = {&question, 1, nullptr};
    KnownRolesBeginReading();
    // WorkerRefreshCatalog has just tried, or does so soon.
    if (!catalog_locked && !TryRead(ReadOne, &reading)) {
      NoteLocked();
    }
    if (catalog_locked) {
      const MemoryContext context = MemoryContextSwitchTo(catalog_context);
      reading.catalog = CatalogUnread(question, locked_reason);
      MemoryContextSwitchTo(context);
    }
    WorkerRequire(EngineAnswerMapping(reading.catalog));
    MemoryContextReset(catalog_context);
  }
}

void WorkerFindRoleName(Oid role, char* name) {
  RoleName wanted = {role, name};
  if (!TryRead(LookUpRoleName, &wanted)) {
    NoteLocked();
    snprintf(name, NAMEDATALEN, "unknown (OID=%u)", role);
  }
}

}  // namespace polarx
