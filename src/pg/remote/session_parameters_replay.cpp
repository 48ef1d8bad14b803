// The session's parameters are set on leases, which know what they were given. In a backend, on its
// only thread.
#include <libpq-fe.h>

#include <chrono>

#include "core/time.h"

#include "pg/base/guc.h"
#include "pg/remote/lease_use.h"
#include "pg/remote/remote_error.h"
#include "pg/remote/session_parameters_replay.h"
#include "pg/prelude.h"

namespace polarx {

// What a lease was given; change 0: unknown.
struct AppliedParameter {
  char* name;
  uint64 change;
  AppliedParameter* next;
};

namespace {

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
  PolarxLease* lease;
  Setting* settings;
  int count;
  int answered;
  RemoteError* error;  // of settings[answered]
};

AppliedParameter** FindApplied(PolarxLease* lease, const char* name) {
  AppliedParameter** link = &lease->applied_parameters;
  while (*link != nullptr && pg_strcasecmp((*link)->name, name) != 0) {
    link = &(*link)->next;
  }
  return link;
}

AppliedParameter* AppliedNamed(PolarxLease* lease, const char* name) {
  AppliedParameter** place = FindApplied(lease, name);
  if (*place == nullptr) {
    char* copy = MemoryContextStrdup(TopMemoryContext, name);
    auto* added = static_cast<AppliedParameter*>(MemoryContextAllocExtended(
        TopMemoryContext, sizeof(AppliedParameter), MCXT_ALLOC_NO_OOM | MCXT_ALLOC_ZERO));
    if (added == nullptr) {
      pfree(copy);
      ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
    }
    added->name = copy;
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
  for (const AppliedParameter* a = lease->applied_parameters; a != nullptr; a = a->next) {
    ++most;
  }
  return most;
}

// Resets first: what is wanted holds in the end. The lease knows nothing of a parameter, as long as
// its answer has not come.
void Plan(Replay* replay, PolarxLease* lease, bool with_local) {
  replay->lease = lease;
  if (lease->parameters_version == SessionParametersVersion() && !with_local) {
    return;
  }
  replay->settings = static_cast<Setting*>(palloc(sizeof(Setting) * (MostSettings(lease) + 1)));
  for (const AppliedParameter* a = lease->applied_parameters; a != nullptr; a = a->next) {
    if (!IsWanted(lease->role, a->name)) {
      replay->settings[replay->count++] = {a->name, nullptr, 0};
    }
  }
  for (const SessionParameter* p = SessionParameters(); p != nullptr; p = p->next) {
    const char* value = WantedValue(p, with_local);
    if (p->role != lease->role || value == nullptr) {
      continue;
    }
    AppliedParameter* applied = AppliedNamed(lease, p->name);
    if (applied->change == 0 || applied->change != p->change) {
      replay->settings[replay->count++] = {p->name, value, value == p->value ? p->change : 0};
    }
  }
}

bool SendSetting(PGconn* conn, const char* sql, const char* name, const char* value) {
  const char* values[] = {name, value};
  return PQsendQueryParams(conn, sql, 2, nullptr, values, nullptr, nullptr, 0) == 1;
}

void Send(const Replay* replay) {
  PolarxLease* lease = replay->lease;
  bool sent = LeaseTakeUp(lease, true);
  lease->busy = true;
  lease->setting = true;
  lease->parameters_version = kStaleVersion;  // should this not come to its end
  for (int i = 0; sent && i < replay->count; ++i) {
    AppliedNamed(lease, replay->settings[i].name)->change = 0;
    sent = SendSetting(lease->conn, kSet, replay->settings[i].name, replay->settings[i].value);
  }
  lease->broken = !sent || PQpipelineSync(lease->conn) != 1 || PQflush(lease->conn) < 0;
}

[[noreturn]] void Raise(Replay* replay, const RemoteError* error) {
  RaiseRemoteError(error, replay->lease, kSet);
}

[[noreturn]] void RaiseLost(Replay* replay, const PGresult* result) {
  const RemoteError* error = MakeConnectionLost(replay->lease, result);
  replay->lease->broken = true;
  Raise(replay, error);
}

[[noreturn]] void RaiseTimeout(Replay* replay) {
  replay->lease->broken = true;
  Raise(replay, MakeRemoteError(
                    ERRCODE_CONNECTION_FAILURE,
                    psprintf("datanode \"%s\" did not answer within pooler.pooler_dn_set_timeout "
                             "(%d s)",
                             replay->lease->node_name, parameters.pooler_dn_set_timeout),
                    "The connection is closed.", nullptr));
}

void WaitForResult(Replay* replay, TimePoint deadline) {
  PGconn* conn = replay->lease->conn;
  while (PQisBusy(conn)) {
    const int unsent = PQflush(conn);
    if (unsent < 0) {
      RaiseLost(replay, nullptr);
    }
    if (!ClientWaitSocket(PQsocket(conn),
                          WL_SOCKET_READABLE | (unsent > 0 ? WL_SOCKET_WRITEABLE : 0),
                          MillisecondsUntil(deadline), true)) {
      RaiseTimeout(replay);
    }
    if (PQconsumeInput(conn) != 1) {
      RaiseLost(replay, nullptr);
    }
  }
}

// Takes one result. False: it was the last one, the lease is in sync.
bool TakeAnswer(Replay* replay, TimePoint deadline) {
  PolarxLease* lease = replay->lease;
  WaitForResult(replay, deadline);
  PQclear(lease->result);
  lease->result = PQgetResult(lease->conn);
  const bool old = lease->unread_batches > 0;
  switch (PQresultStatus(lease->result)) {
    case PGRES_PIPELINE_SYNC:
      lease->unread_batches -= old ? 1 : 0;
      return old;
    case PGRES_FATAL_ERROR:
      if (lease->result == nullptr) {  // the end of one command's results
        if (PQstatus(lease->conn) != CONNECTION_OK ||
            PQtransactionStatus(lease->conn) != PQTRANS_ACTIVE) {
          RaiseLost(replay, nullptr);
        }
        replay->answered += !old && replay->error == nullptr ? 1 : 0;
      } else if (EndsConnection(lease->conn, lease->result)) {
        RaiseLost(replay, lease->result);
      } else if (old) {
        lease->broken = true;
        Raise(replay, CopyRemoteError(lease->result));
      } else {
        replay->error = CopyRemoteError(lease->result);
      }
      return true;
    default:
      return true;
  }
}

// The batch is one transaction on the datanode: an error has undone all of it.
void Conclude(Replay* replay) {
  PolarxLease* lease = replay->lease;
  PQclear(lease->result);
  lease->result = nullptr;
  lease->busy = false;
  lease->setting = false;
  if (replay->error != nullptr) {
    Raise(replay, replay->error);
  }
  for (int i = 0; i < replay->count; ++i) {
    AppliedParameter** place = FindApplied(lease, replay->settings[i].name);
    if (replay->settings[i].value != nullptr) {
      (*place)->change = replay->settings[i].change;
    } else {
      FreeApplied(place);
    }
  }
}

void DescribeReplay(void* arg) {
  const auto* replay = static_cast<const Replay*>(arg);
  if (replay->answered < replay->count) {
    errcontext("parameter \"%s\" of this session on datanode \"%s\"",
               replay->settings[replay->answered].name, replay->lease->node_name);
  }
}

void Finish(Replay* replay, TimePoint deadline) {
  ErrorContextCallback context = {error_context_stack, DescribeReplay, replay};
  error_context_stack = &context;
  if (replay->lease->broken) {
    RaiseLost(replay, nullptr);
  }
  while (TakeAnswer(replay, deadline)) {
  }
  Conclude(replay);
  error_context_stack = context.previous;
}

bool IsBeingSet(const PolarxLease* lease, int /*level*/) { return lease->setting; }

}  // namespace

void ReplayParameters(PolarxLease* const* leases, int count, bool with_local) {
  auto* replays = static_cast<Replay*>(palloc0(sizeof(Replay) * (count + 1)));
  for (int i = 0; i < count; ++i) {
    Plan(&replays[i], leases[i], with_local);
  }
  for (int i = 0; i < count; ++i) {
    if (replays[i].count > 0) {
      Send(&replays[i]);
    }
  }
  const TimePoint deadline = Now() + std::chrono::seconds(parameters.pooler_dn_set_timeout);
  for (int i = 0; i < count; ++i) {
    if (replays[i].count > 0) {
      Finish(&replays[i], deadline);
      (void)PQexitPipelineMode(leases[i]->conn);
    }
    leases[i]->parameters_version = SessionParametersVersion();
  }
}

void ReplayStop(PolarxLease* const* leases, int count) noexcept {
  LeasesStop(IsBeingSet, 0);
  for (int i = 0; i < count; ++i) {
    leases[i]->setting = false;
  }
}

int ReplayQueueLocal(PolarxLease* lease) {
  int queued = 0;
  for (const SessionParameter* p = SessionParameters(); p != nullptr; p = p->next) {
    if (p->role != lease->role || p->local_value == nullptr || lease->broken) {
      continue;
    }
    if (SendSetting(lease->conn, kSetLocal, p->name, p->local_value)) {
      ++queued;
    } else {
      lease->broken = true;
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
  lease->parameters_version = kStaleVersion;
}

void ReplayForget(PolarxLease* lease) noexcept {
  lease->parameters_version = 0;
  while (lease->applied_parameters != nullptr) {
    FreeApplied(&lease->applied_parameters);
  }
}

}  // namespace polarx
