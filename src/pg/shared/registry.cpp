// The shared memory of the registry, and what sessions ask of it; every process, main thread.
#include <cstring>

#include "pg/base/guc.h"
#include "pg/shared/registry_shared.h"

#include "pg/prelude.h"

namespace polarx {

RegistryMemory* registry_memory = nullptr;
LWLock* registry_lock = nullptr;

namespace {

constexpr const char* kTranche = "polarx_pooler";
// A session's request overrides the back-off, but not more often than that.
constexpr int64 kAskedRetryUs = USECS_PER_SEC;

const char* no_launcher = "";  // set in the postmaster, before the memory is there

shmem_request_hook_type previous_request_hook = nullptr;
shmem_startup_hook_type previous_startup_hook = nullptr;

extern "C" void RequestMemory() {
  if (previous_request_hook != nullptr) {
    previous_request_hook();
  }
  RequestAddinShmemSpace(sizeof(RegistryMemory));
  RequestNamedLWLockTranche(kTranche, 1);
}

extern "C" void SetUpMemory() {
  if (previous_startup_hook != nullptr) {
    previous_startup_hook();
  }
  bool found = false;
  LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
  registry_memory = static_cast<RegistryMemory*>(
      ShmemInitStruct("polarx_pooler registry", sizeof(RegistryMemory), &found));
  if (!found) {
    memset(registry_memory, 0, sizeof(RegistryMemory));
    ConditionVariableInit(&registry_memory->changed);
    strlcpy(registry_memory->no_launcher, no_launcher, sizeof(registry_memory->no_launcher));
    // A crash of another process clears the memory while the postmaster lives: the clock goes on.
    registry_memory->last_generation = static_cast<uint64>(GetCurrentTimestamp());
  }
  registry_lock = &GetNamedLWLockTranche(kTranche)[0].lock;
  LWLockRelease(AddinShmemInitLock);
}

bool NothingToRemember(const RegistrySlot& slot) {
  return slot.entry.state == WorkerState::kNone && slot.entry.pid == 0 && slot.blockers == 0;
}

// Milliseconds from now to `end`, 0 if it is over.
long MillisecondsUntil(TimestampTz end) {
  return TimestampDifferenceMilliseconds(GetCurrentTimestamp(), end);
}

}  // namespace

void RegistryReserve() {
  previous_request_hook = shmem_request_hook;
  shmem_request_hook = RequestMemory;
  previous_startup_hook = shmem_startup_hook;
  shmem_startup_hook = SetUpMemory;
}

void RegistrySetNoLauncher(const char* reason) { no_launcher = reason; }

bool RegistryExists() { return registry_memory != nullptr; }

void RegistryRequire() {
  if (!RegistryExists()) {
    ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
                    errmsg("polarx_pooler must be loaded via shared_preload_libraries"),
                    errhint("Add polarx_pooler to shared_preload_libraries in postgresql.conf and "
                            "restart the server.")));
  }
}

RegistrySlot* RegistryFind(Oid database) {
  for (int i = 0; i < registry_memory->count; i++) {
    if (registry_memory->slots[i].entry.database == database) {
      return &registry_memory->slots[i];
    }
  }
  return nullptr;
}

RegistrySlot* RegistryFindOrCreate(Oid database) {
  RegistrySlot* slot = RegistryFind(database);
  if (slot != nullptr) {
    return slot;
  }
  if (registry_memory->count < kMaxDatabases) {
    slot = &registry_memory->slots[registry_memory->count++];
  } else {
    for (RegistrySlot& candidate : registry_memory->slots) {
      if (NothingToRemember(candidate)) {
        slot = &candidate;
        break;
      }
    }
  }
  if (slot != nullptr) {
    memset(slot, 0, sizeof(*slot));
    slot->entry.database = database;
  }
  return slot;
}

bool RegistryLookup(Oid database, WorkerEntry* entry) {
  LWLockAcquire(registry_lock, LW_SHARED);
  const RegistrySlot* slot = RegistryFind(database);
  if (slot != nullptr) {
    *entry = slot->entry;
  }
  LWLockRelease(registry_lock);
  return slot != nullptr;
}

int RegistryList(WorkerEntry* entries, int max) {
  LWLockAcquire(registry_lock, LW_SHARED);
  const int count = registry_memory->count < max ? registry_memory->count : max;
  for (int i = 0; i < count; i++) {
    entries[i] = registry_memory->slots[i].entry;
  }
  LWLockRelease(registry_lock);
  return count;
}

void RegistryWant(RegistrySlot* slot, TimestampTz at) {
  slot->entry.state = WorkerState::kWanted;
  slot->entry.retry_at = at;
  slot->again = false;
}

void RegistryTell() {
  ConditionVariableBroadcast(&registry_memory->changed);
  LWLockAcquire(registry_lock, LW_SHARED);
  if (registry_memory->launcher != nullptr) {
    SetLatch(registry_memory->launcher);
  }
  LWLockRelease(registry_lock);
}

// The start of a slot that is wanted fails for want of a launcher.
void FailWithoutLauncher(RegistrySlot* slot) {
  if (registry_memory->no_launcher[0] != '\0' && slot->entry.state == WorkerState::kWanted) {
    slot->entry.failures = 1;
    strlcpy(slot->entry.reason, registry_memory->no_launcher, sizeof(slot->entry.reason));
  }
}

void RegistryRequestStart(Oid database, bool force) {
  LWLockAcquire(registry_lock, LW_EXCLUSIVE);
  RegistrySlot* slot = RegistryFindOrCreate(database);
  if (slot != nullptr) {
    slot->entry.known = slot->entry.known || database == MyDatabaseId;
    switch (slot->entry.state) {
      case WorkerState::kStopped:
        if (!force) {
          break;
        }
        slot->entry.state = WorkerState::kNone;
        slot->entry.failures = 0;
        [[fallthrough]];
      case WorkerState::kNone:
        if (slot->blockers > 0) {
          slot->again = true;
        } else {
          RegistryWant(slot, GetCurrentTimestamp());
        }
        break;
      case WorkerState::kWanted:
        slot->entry.retry_at = Min(slot->entry.retry_at, slot->tried_at + kAskedRetryUs);
        break;
      case WorkerState::kStopping:
        slot->hold = slot->hold && !force;
        slot->again = true;
        break;
      case WorkerState::kStarting:
      case WorkerState::kReady:
        slot->again = true;  // it may have made up its mind to end
        break;
    }
    FailWithoutLauncher(slot);
  }
  LWLockRelease(registry_lock);
  RegistryTell();
}

// The start has not been tried if the launcher itself does not come up.
void NoteMissingLauncher(WorkerEntry* entry) {
  LWLockAcquire(registry_lock, LW_SHARED);
  if (registry_memory->launcher == nullptr && entry->state == WorkerState::kWanted) {
    strlcpy(entry->reason, "the launcher of the pooler workers is not running",
            sizeof(entry->reason));
  }
  LWLockRelease(registry_lock);
}

bool RegistryWaitReady(Oid database, int timeout_ms, WorkerEntry* entry) {
  const TimestampTz end = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), timeout_ms);
  int failures_before = -1;
  bool ready = false;
  ConditionVariablePrepareToSleep(&registry_memory->changed);
  for (;;) {
    if (!RegistryLookup(database, entry)) {
      memset(entry, 0, sizeof(*entry));
      entry->database = database;
      strlcpy(entry->reason, "too many databases", sizeof(entry->reason));
      break;
    }
    if (entry->state == WorkerState::kReady) {
      ready = true;
      break;
    }
    if (failures_before < 0) {
      failures_before = entry->failures;
    }
    const bool waits_in_vain =
        (entry->state == WorkerState::kNone && entry->blocked_by == 0) ||
        entry->state == WorkerState::kStopped || registry_memory->no_launcher[0] != '\0' ||
        (entry->state == WorkerState::kWanted && entry->failures > 1 &&
         entry->failures > failures_before);
    const long left = MillisecondsUntil(end);
    if (waits_in_vain) {
      break;
    }
    if (left <= 0) {
      NoteMissingLauncher(entry);
      break;
    }
    ConditionVariableTimedSleep(&registry_memory->changed, left, WaitEventOf(Wait::kWorkerChange));
  }
  ConditionVariableCancelSleep();
  return ready;
}

void RegistrySocketPath(Oid database, char* path, size_t size) {
  snprintf(path, size, "%s/.s.PGPOOL.%u.%d", PG_STAT_TMP_DIR, database, parameters.port);
}

}  // namespace polarx
