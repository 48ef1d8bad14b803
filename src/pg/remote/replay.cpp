// The session's parameters are set on leases, which know what they were given. In a backend, on its
// only thread.
#include <libpq-fe.h>

#include <chrono>

#include "core/time.h"

#include "pg/base/guc.h"
#include "pg/remote/errors.h"
#include "pg/remote/replay.h"
#include "pg/remote/run.h"
#include "pg/prelude.h"

namespace polarx {
namespace {

struct AppliedParameter {
  char* name;
  uint64 change;  // 0: unknown
  AppliedParameter* next;
};

// Never a version of the list.
constexpr uint64 kStaleVersion = PG_UINT64_MAX;
constexpr const char* kSet = "SELECT pg_catalog.set_config($1, $2, false)";
constexpr const char* kSetLocal = "SELECT pg_catalog.set_config($1, $2, true)";

struct Setting {
  const char* name;
  const char* value;  // NULL: reset
  uint64 change;
};

// What one lease is to be told, in one batch.
struct Replay {
  Setting* settings;
  int count;
};

// What all of them are told at once.
struct Replays {
  const Replay* replays;
  RemoteRun* runs;
  int count;
};

}  // namespace

// What a lease was given.
struct AppliedParameters {
  MemoryContext memory;  // of all this
  uint64 version;        // of the session's list, that it agrees with
  AppliedParameter* first;
};

namespace {

AppliedParameters* Applied(PolarxLease* lease) {
  if (lease->remote.applied == nullptr) {
    // Reaches its place only when it is whole: an error here frees it.
    MemoryContext memory = AllocSetContextCreate(
        CurrentMemoryContext, "polarx_pooler applied parameters", ALLOCSET_SMALL_SIZES);
    auto* applied =
        static_cast<AppliedParameters*>(MemoryContextAllocZero(memory, sizeof(AppliedParameters)));
    applied->memory = memory;
    MemoryContextSetParent(memory, TopMemoryContext);
    lease->remote.applied = applied;
  }
  return lease->remote.applied;
}

AppliedParameter** FindApplied(AppliedParameters* applied, const char* name) {
  AppliedParameter** link = &applied->first;
  while (*link != nullptr && pg_strcasecmp((*link)->name, name) != 0) {
    link = &(*link)->next;
  }
  return link;
}

AppliedParameter* AppliedNamed(PolarxLease* lease, const char* name) {
  AppliedParameters* applied = Applied(lease);
  AppliedParameter** place = FindApplied(applied, name);
  if (*place == nullptr) {
    auto* added = static_cast<AppliedParameter*>(
        MemoryContextAllocZero(applied->memory, sizeof(AppliedParameter)));
    added->name = MemoryContextStrdup(applied->memory, name);
    *place = added;
  }
  return *place;
}

void FreeApplied(AppliedParameter** place) {
  AppliedParameter* gone = *place;
  *place = gone->next;
  pfree(gone->name);
  pfree(gone);
}

const AppliedParameter* FirstApplied(const PolarxLease* lease) {
  return lease->remote.applied != nullptr ? lease->remote.applied->first : nullptr;
}

uint64 AppliedVersion(const PolarxLease* lease) {
  return lease->remote.applied != nullptr ? lease->remote.applied->version : 0;
}

const char* WantedValue(const SessionParameter* parameter, bool with_local) {
  return with_local && parameter->local_value != nullptr ? parameter->local_value
                                                         : parameter->value;
}

bool IsWanted(Oid role, const char* name) {
  for (const SessionParameter* p = SessionParameters(); p != nullptr; p = p->next) {
    if (p->role == role && p->value != nullptr && pg_strcasecmp(p->name, name) == 0) {
      return true;
    }
  }
  return false;
}

int MostSettings(const PolarxLease* lease) {
  int most = 0;
  for (const SessionParameter* p = SessionParameters(); p != nullptr; p = p->next) {
    ++most;
  }
  for (const AppliedParameter* a = FirstApplied(lease); a != nullptr; a = a->next) {
    ++most;
  }
  return most;
}

// Resets come first: what is wanted holds in the end. The lease knows nothing of a parameter, as
// long as its answer has not come. Returns false if there is nothing to be told.
bool Plan(Replay* replay, PolarxLease* lease, bool with_local) {
  *replay = {};
  if (AppliedVersion(lease) == SessionParametersVersion() && !with_local) {
    return false;
  }
  replay->settings = static_cast<Setting*>(palloc(sizeof(Setting) * (MostSettings(lease) + 1)));
  for (const AppliedParameter* a = FirstApplied(lease); a != nullptr; a = a->next) {
    if (!IsWanted(lease->role, a->name)) {
      replay->settings[replay->count++] = {a->name, nullptr, 0};
    }
  }
  for (const SessionParameter* p = SessionParameters(); p != nullptr; p = p->next) {
    const char* value = WantedValue(p, with_local);
    if (p->role != lease->role || value == nullptr) {
      continue;
    }
    const AppliedParameter* applied = AppliedNamed(lease, p->name);
    if (applied->change == 0 || applied->change != p->change) {
      replay->settings[replay->count++] = {p->name, value, value == p->value ? p->change : 0};
    }
  }
  return replay->count > 0;
}

bool QueueSetting(PolarxLease* lease, const char* sql, const char* name, const char* value) {
  const char* values[] = {name, value};
  const StatementText text = {sql, 2, values, true};
  return RemoteQueue(lease, &text);
}

void Start(const Replay* replay, PolarxLease* lease, RemoteRun* run) {
  (void)LeaseTakeUp(lease, true);
  Applied(lease)->version = kStaleVersion;  // should this not come to its end
  for (int i = 0; i < replay->count; ++i) {
    AppliedNamed(lease, replay->settings[i].name)->change = 0;
  }
  const int last = replay->count - 1;
  for (int i = 0; i < last; ++i) {
    (void)QueueSetting(lease, kSet, replay->settings[i].name, replay->settings[i].value);
  }
  const char* values[] = {replay->settings[last].name, replay->settings[last].value};
  const StatementText text = {kSet, 2, values, true};
  RemoteStart(run, lease, last, &text);
}

// The run that an error is about: one that has failed, else the first one that is awaited.
int Subject(const Replays* all) {
  int awaited = all->count;
  for (int i = 0; i < all->count; ++i) {
    if (all->runs[i].error != nullptr) {
      return i;
    }
    if (awaited == all->count && !RemoteEnded(&all->runs[i])) {
      awaited = i;
    }
  }
  return awaited;
}

void DescribeReplay(void* arg) {
  const auto* all = static_cast<const Replays*>(arg);
  const int subject = Subject(all);
  if (subject < all->count) {
    const RemoteRun* run = &all->runs[subject];
    const Replay* replay = &all->replays[subject];
    errcontext("parameter \"%s\" of this session on datanode \"%s\"",
               replay->settings[replay->count - 1 - run->prefix].name, run->lease->node_name);
  }
}

[[noreturn]] void RaiseTimeout(const Replays* all) {
  PolarxLease* lease = all->runs[Subject(all)].lease;
  LeaseBreak(lease);
  RaiseRemoteError(MakeRemoteError(ERRCODE_CONNECTION_FAILURE,
                                   psprintf("datanode \"%s\" did not answer within "
                                            "pooler.pooler_dn_set_timeout (%d s)",
                                            lease->node_name, parameters.pooler_dn_set_timeout),
                                   "The connection is closed.", nullptr),
                   lease, kSet);
}

void Finish(Replays* all) {
  const TimePoint deadline = Now() + std::chrono::seconds(parameters.pooler_dn_set_timeout);
  ErrorContextCallback context = {error_context_stack, DescribeReplay, all};
  error_context_stack = &context;
  if (!RemoteFinish(all->runs, all->count, nullptr, true, deadline)) {
    RaiseTimeout(all);
  }
  error_context_stack = context.previous;
}

// The batch is one transaction on the datanode, and has succeeded.
void Conclude(const Replay* replay, PolarxLease* lease) {
  for (int i = 0; i < replay->count; ++i) {
    AppliedParameter** place = FindApplied(lease->remote.applied, replay->settings[i].name);
    if (replay->settings[i].value != nullptr) {
      (*place)->change = replay->settings[i].change;
    } else {
      FreeApplied(place);
    }
  }
  (void)PQexitPipelineMode(lease->conn);
}

}  // namespace

void ReplayParameters(PolarxLease* const* leases, int count, bool with_local) {
  auto* replays = static_cast<Replay*>(palloc(sizeof(Replay) * (count + 1)));
  auto* runs = static_cast<RemoteRun*>(palloc(sizeof(RemoteRun) * (count + 1)));
  Replays all = {replays, runs, 0};
  for (int i = 0; i < count; ++i) {
    if (Plan(&replays[all.count], leases[i], with_local)) {
      runs[all.count++].lease = leases[i];
    }
  }
  for (int i = 0; i < all.count; ++i) {
    Start(&replays[i], runs[i].lease, &runs[i]);
  }
  if (all.count > 0) {
    Finish(&all);
  }
  for (int i = 0; i < all.count; ++i) {
    Conclude(&replays[i], runs[i].lease);
  }
  for (int i = 0; i < count; ++i) {
    if (leases[i]->remote.applied != nullptr) {
      leases[i]->remote.applied->version = SessionParametersVersion();
    }
  }
}

int ReplayQueueLocal(PolarxLease* lease) {
  int queued = 0;
  for (const SessionParameter* p = SessionParameters(); p != nullptr; p = p->next) {
    if (p->role == lease->role && p->local_value != nullptr &&
        QueueSetting(lease, kSetLocal, p->name, p->local_value)) {
      ++queued;
    }
  }
  return queued;
}

const char* ReplayLocalName(const PolarxLease* lease, int index) {
  for (const SessionParameter* p = SessionParameters(); p != nullptr; p = p->next) {
    if (p->role == lease->role && p->local_value != nullptr && index-- == 0) {
      return p->name;
    }
  }
  return nullptr;
}

void ReplayUncertain(PolarxLease* lease, const char* name) {
  AppliedNamed(lease, name)->change = 0;
  lease->remote.applied->version = kStaleVersion;
}

}  // namespace polarx
