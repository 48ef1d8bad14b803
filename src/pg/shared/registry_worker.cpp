// What the launcher and the pooler workers write into the registry; on their main threads.
#include <cstring>

#include "pg/shared/registry_shared.h"

#include "pg/prelude.h"

namespace polarx {
namespace {

constexpr int64 kFirstHoldOffUs = 100 * 1000;
constexpr int64 kLongestHoldOffUs = 30 * USECS_PER_SEC;
// A worker that was ready for so long has not failed to start.
constexpr int64 kProvenUs = USECS_PER_SEC;

extern "C" void ForgetLauncher(int /*code*/, Datum /*arg*/) {
  LWLockAcquire(registry_lock, LW_EXCLUSIVE);
  if (registry_memory->launcher == MyLatch) {
    registry_memory->launcher = nullptr;
  }
  LWLockRelease(registry_lock);
}

void SetReason(WorkerEntry* entry, const char* reason) {
  strlcpy(entry->reason, reason != nullptr ? reason : "", sizeof(entry->reason));
}

void RegistryHoldOff(RegistrySlot* slot, TimestampTz now) {
  const int failures = ++slot->entry.failures;
  int64 delay = 0;
  if (failures > 1) {
    delay = Min(kFirstHoldOffUs << Min(failures - 2, 20), kLongestHoldOffUs);
  }
  RegistryWant(slot, now + delay);
}

// The worker has ended because stop() or a RegistryBlock asked for it.
void FinishStop(RegistrySlot* slot, TimestampTz now) {
  slot->entry.state = slot->hold ? WorkerState::kStopped : WorkerState::kNone;
  slot->again = slot->again && !slot->hold;
  slot->hold = false;
  if (slot->again && slot->blockers == 0) {
    RegistryWant(slot, now);
  }
}

void FinishWorker(RegistrySlot* slot, WorkerEnd end, TimestampTz now) {
  WorkerEntry* entry = &slot->entry;
  switch (end) {
    case WorkerEnd::kFailed:
      if (entry->state == WorkerState::kReady && now - entry->started_at >= kProvenUs) {
        entry->failures = 0;
      }
      RegistryHoldOff(slot, now);
      break;
    case WorkerEnd::kTerminated:
      entry->failures = 0;
      RegistryWant(slot, now);
      break;
    case WorkerEnd::kFinished:
      entry->failures = 0;
      entry->known = false;
      entry->state = WorkerState::kNone;
      if (slot->again) {
        RegistryWant(slot, now);
      }
      break;
  }
}

}  // namespace

void RegistrySetLauncher() {
  LWLockAcquire(registry_lock, LW_EXCLUSIVE);
  registry_memory->launcher = MyLatch;
  // An earlier launcher's starts have lost the one who watches them.
  for (int i = 0; i < registry_memory->count; i++) {
    RegistrySlot* slot = &registry_memory->slots[i];
    if (slot->entry.state == WorkerState::kStarting && slot->entry.pid == 0) {
      RegistryWant(slot, slot->entry.retry_at);
    }
  }
  LWLockRelease(registry_lock);
  before_shmem_exit(ForgetLauncher, 0);
}

bool RegistryClaim(Oid database, uint64* generation) {
  const TimestampTz now = GetCurrentTimestamp();
  LWLockAcquire(registry_lock, LW_EXCLUSIVE);
  RegistrySlot* slot = RegistryFind(database);
  const bool granted = slot != nullptr && slot->entry.state == WorkerState::kStarting &&
                       slot->entry.pid == 0 && slot->blockers == 0;
  if (granted) {
    WorkerEntry* entry = &slot->entry;
    entry->pid = MyProcPid;
    entry->generation = ++registry_memory->last_generation;
    entry->started_at = now;
    slot->again = false;
    *generation = entry->generation;
  }
  LWLockRelease(registry_lock);
  return granted;
}

bool RegistryReady(Oid database, int threads, int fds_limit) {
  LWLockAcquire(registry_lock, LW_EXCLUSIVE);
  RegistrySlot* slot = RegistryFind(database);
  const bool granted = slot != nullptr && slot->entry.pid == MyProcPid &&
                       slot->entry.state == WorkerState::kStarting;
  if (granted) {
    slot->entry.state = WorkerState::kReady;
    slot->entry.known = true;
    slot->entry.threads = threads;
    slot->entry.fds_limit = fds_limit;
    SetReason(&slot->entry, nullptr);
  }
  LWLockRelease(registry_lock);
  RegistryTell();
  return granted;
}

void RegistryReportFds(Oid database, int fds_used) {
  LWLockAcquire(registry_lock, LW_EXCLUSIVE);
  RegistrySlot* slot = RegistryFind(database);
  if (slot != nullptr && slot->entry.pid == MyProcPid) {
    slot->entry.fds_used = fds_used;
  }
  LWLockRelease(registry_lock);
}

void RegistryGone(Oid database, WorkerEnd end, const char* reason) {
  const TimestampTz now = GetCurrentTimestamp();
  LWLockAcquire(registry_lock, LW_EXCLUSIVE);
  RegistrySlot* slot = RegistryFind(database);
  if (slot != nullptr && slot->entry.pid == MyProcPid) {
    WorkerEntry* entry = &slot->entry;
    entry->pid = 0;
    entry->threads = entry->fds_used = entry->fds_limit = 0;
    SetReason(entry, reason);
    if (entry->state == WorkerState::kStopping) {
      FinishStop(slot, now);
    } else {
      FinishWorker(slot, end, now);
    }
  }
  LWLockRelease(registry_lock);
  RegistryTell();
}

Oid RegistryNextDue(TimestampTz now, TimestampTz* next_at) {
  *next_at = DT_NOEND;
  RegistrySlot* next = nullptr;
  Oid database = InvalidOid;
  LWLockAcquire(registry_lock, LW_EXCLUSIVE);
  for (int i = 0; i < registry_memory->count; i++) {
    RegistrySlot* slot = &registry_memory->slots[i];
    if (slot->entry.state == WorkerState::kWanted && slot->entry.retry_at < *next_at) {
      next = slot;
      *next_at = slot->entry.retry_at;
    }
  }
  if (next != nullptr && *next_at <= now) {
    next->entry.state = WorkerState::kStarting;
    next->tried_at = now;
    database = next->entry.database;
  }
  LWLockRelease(registry_lock);
  return database;
}

void RegistryStartFailed(Oid database, bool retry, const char* reason) {
  const TimestampTz now = GetCurrentTimestamp();
  LWLockAcquire(registry_lock, LW_EXCLUSIVE);
  RegistrySlot* slot = RegistryFind(database);
  if (slot != nullptr && slot->entry.state == WorkerState::kStarting && slot->entry.pid == 0) {
    SetReason(&slot->entry, reason);
    if (retry) {
      RegistryHoldOff(slot, now);
    } else {
      slot->entry.state = WorkerState::kNone;
      slot->entry.failures = 0;
    }
  }
  LWLockRelease(registry_lock);
  RegistryTell();
}

}  // namespace polarx
