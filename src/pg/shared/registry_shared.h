// The registry's shared memory, for the two files that work on it.
#pragma once

#include "pg/shared/registry.h"

#include "pg/prelude.h"

namespace polarx {

struct RegistrySlot {
  WorkerEntry entry;
  bool hold;             // kStopping: stop() wants it to stay down
  bool again;            // asked for while it could not be started: once it can
  int blockers;          // RegistryBlock minus RegistryUnblock
  TimestampTz tried_at;  // last start
};

struct RegistryMemory {
  ConditionVariable changed;
  Latch* launcher;  // nullptr while there is none
  char no_launcher[100];  // why none will ever run; "": one will
  uint64 last_generation;
  int count;  // slots in use, the first ones
  RegistrySlot slots[kMaxDatabases];
};

extern RegistryMemory* registry_memory;  // nullptr: not preloaded
extern LWLock* registry_lock;

// Holds the lock in `mode`; callers do nothing that may ereport while they have it.
RegistrySlot* RegistryFind(Oid database);
// Nullptr: the table is full.
RegistrySlot* RegistryFindOrCreate(Oid database);

// Nothing runs and nothing is blocked: the launcher may start it, not before `at`.
void RegistryWant(RegistrySlot* slot, TimestampTz at);
// To be called without the lock after a change: wakes all who wait, and the launcher.
void RegistryTell();

}  // namespace polarx
