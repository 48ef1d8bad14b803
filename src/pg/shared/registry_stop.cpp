// Workers are told to end here, and kept from starting; backends, main thread.
#include <csignal>
#include <cstring>

#include "pg/shared/registry_shared.h"

#include "pg/prelude.h"

namespace polarx {
namespace {

// The worker's last steps take no longer than this once the registry says that it is gone.
constexpr long kExitPollMs = 2;

List* blocked_by_me = NIL;  // of oids, in TopMemoryContext
bool exit_registered = false;

extern "C" void UnblockAtExit(int /*code*/, Datum /*arg*/) { RegistryUnblockAll(); }

// Returns the process to wait for, 0 if none. The caller holds the lock.
pid_t TellToEnd(RegistrySlot* slot, bool hold) {
  WorkerEntry* entry = &slot->entry;
  if (entry->pid == 0) {
    if (hold || entry->state != WorkerState::kStopped) {
      entry->state = hold ? WorkerState::kStopped : WorkerState::kNone;
    }
    return 0;
  }
  if (entry->state == WorkerState::kStopping) {
    slot->hold = slot->hold || hold;
    return entry->pid;
  }
  entry->state = WorkerState::kStopping;
  slot->hold = hold;
  // The pid is the worker's as long as it stands here: it takes it out under the lock.
  kill(entry->pid, SIGTERM);
  return entry->pid;
}

void AwaitEnd(Oid database, pid_t pid) {
  const TimestampTz start = GetCurrentTimestamp();
  WorkerEntry entry;
  ConditionVariablePrepareToSleep(&registry_memory->changed);
  while (RegistryLookup(database, &entry) && entry.pid == pid) {
    ConditionVariableSleep(&registry_memory->changed, WaitEventOf(Wait::kWorkerChange));
  }
  ConditionVariableCancelSleep();
  // It leaves the ProcArray without telling anybody.
  for (;;) {
    const PGPROC* process = BackendPidGetProc(pid);
    if (process == nullptr || process->databaseId != database) {
      break;
    }
    (void)WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, kExitPollMs,
                    WaitEventOf(Wait::kWorkerChange));
    ResetLatch(MyLatch);
    CHECK_FOR_INTERRUPTS();
  }
  ereport(DEBUG1, (errmsg_internal("pooler worker with PID %d has ended after %ld ms", pid,
                                   TimestampDifferenceMilliseconds(start, GetCurrentTimestamp()))));
}

}  // namespace

bool RegistryStop(Oid database, bool hold) {
  pid_t pid = 0;
  bool was_there = false;
  LWLockAcquire(registry_lock, LW_EXCLUSIVE);
  RegistrySlot* slot = hold ? RegistryFindOrCreate(database) : RegistryFind(database);
  if (slot != nullptr) {
    was_there = slot->entry.pid != 0 || slot->entry.state == WorkerState::kWanted ||
                slot->entry.state == WorkerState::kStarting;
    pid = TellToEnd(slot, hold);
    slot->again = false;
  }
  LWLockRelease(registry_lock);
  RegistryTell();
  if (pid != 0) {
    AwaitEnd(database, pid);
  }
  return was_there;
}

void RegistryBlock(Oid database) {
  if (!exit_registered) {
    before_shmem_exit(UnblockAtExit, 0);
    exit_registered = true;
  }
  const MemoryContext context = MemoryContextSwitchTo(TopMemoryContext);
  blocked_by_me = lappend_oid(blocked_by_me, database);
  MemoryContextSwitchTo(context);

  pid_t pid = 0;
  LWLockAcquire(registry_lock, LW_EXCLUSIVE);
  RegistrySlot* slot = RegistryFindOrCreate(database);
  if (slot != nullptr) {
    const WorkerState state = slot->entry.state;
    slot->blockers++;
    slot->entry.blocked_by = MyProcPid;
    slot->again = slot->again || state == WorkerState::kWanted ||
                  state == WorkerState::kStarting || state == WorkerState::kReady;
    pid = TellToEnd(slot, false);
  }
  LWLockRelease(registry_lock);
  RegistryTell();
  if (pid != 0) {
    AwaitEnd(database, pid);
  }
}

void RegistryForget(Oid database) {
  LWLockAcquire(registry_lock, LW_EXCLUSIVE);
  RegistrySlot* slot = RegistryFind(database);
  if (slot != nullptr && slot->entry.pid == 0) {
    slot->entry.state = WorkerState::kNone;
    slot->again = false;
  }
  LWLockRelease(registry_lock);
}

void RegistryUnblock(Oid database) {
  if (!list_member_oid(blocked_by_me, database)) {
    return;
  }
  // One of them: the same one may be there several times.
  blocked_by_me = list_delete_oid(blocked_by_me, database);
  LWLockAcquire(registry_lock, LW_EXCLUSIVE);
  RegistrySlot* slot = RegistryFind(database);
  if (slot != nullptr && slot->blockers > 0 && --slot->blockers == 0) {
    slot->entry.blocked_by = 0;
    // A worker that still ends sees to it itself.
    if (slot->again && slot->entry.state == WorkerState::kNone) {
      RegistryWant(slot, GetCurrentTimestamp());
    }
  }
  LWLockRelease(registry_lock);
  RegistryTell();
}

void RegistryUnblockAll() {
  while (blocked_by_me != NIL) {
    RegistryUnblock(linitial_oid(blocked_by_me));
  }
}

}  // namespace polarx
