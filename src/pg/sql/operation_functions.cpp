// The SQL functions of operation, apart from start and stop; in a backend, on its only thread.
#include <csignal>

#include "pg/base/backends.h"
#include "pg/session/requests.h"
#include "pg/prelude.h"

namespace polarx {
namespace {

// Returns the oid of a node that is named by an argument, InvalidOid for NULL.
Oid NodeArgument(FunctionCallInfo fcinfo, int number) {
  return PG_ARGISNULL(number) ? InvalidOid : ClientFindNode(NameStr(*PG_GETARG_NAME(number)));
}

// Is it a session of this database? Then *superuser tells whose: a process without a role counts as
// a superuser's.
bool IsSession(int pid, bool* superuser) {
  Oid database;
  Oid role;
  if (FindBackend(pid, &database, &role) == kNoPlace || database != MyDatabaseId) {
    return false;
  }
  *superuser = !OidIsValid(role) || superuser_arg(role);
  return true;
}

// Leaves the sessions that still exist; 42501 if one is beyond the caller's rights.
int CheckMayEnd(int* pids, int count) {
  int left = 0;
  for (int i = 0; i < count; ++i) {
    bool of_superuser = false;
    if (!IsSession(pids[i], &of_superuser)) {
      continue;
    }
    if (of_superuser && !superuser()) {
      ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
                      errmsg("must be a superuser to terminate a superuser's session"),
                      errdetail("Process %d belongs to one; no session was terminated.", pids[i])));
    }
    pids[left++] = pids[i];
  }
  return left;
}

// pg_terminate_backend on each; how many were signalled.
int Terminate(const int* pids, int count) {
  int signalled = 0;
  for (int i = 0; i < count; ++i) {
    if (kill(-pids[i], SIGTERM) == 0) {
      ++signalled;
    } else if (errno != ESRCH) {
      ereport(WARNING, (errmsg("could not send signal to process %d: %m", pids[i])));
    }
  }
  return signalled;
}

}  // namespace
}  // namespace polarx

// session_memory() bigint: works without preloading too, for it is called on datanodes.
POLARX_FUNCTION(polarx_session_memory) {
  (void)fcinfo;
  PG_RETURN_INT64(static_cast<int64>(MemoryContextMemAllocated(TopMemoryContext, true)));
}

// reload() void
POLARX_FUNCTION(polarx_reload) {
  (void)fcinfo;
  polarx::ClientReload();
  PG_RETURN_VOID();
}

// ping(node name = NULL) TABLE(node name, ok bool, latency_ms float8, error text)
POLARX_FUNCTION(polarx_ping) {
  polarx::NodeRef* nodes;
  int count = 1;
  if (PG_ARGISNULL(0)) {
    nodes = polarx::ClientAllNodes(&count);
  } else {
    nodes = static_cast<polarx::NodeRef*>(palloc(sizeof(polarx::NodeRef)));
    polarx::ClientResolveNode(NameStr(*PG_GETARG_NAME(0)), nodes);
  }
  InitMaterializedSRF(fcinfo, 0);
  if (count > 0) {
    polarx::ClientPing(nodes, count, reinterpret_cast<ReturnSetInfo*>(fcinfo->resultinfo));
  }
  return 0;
}

// clean(node name = NULL, remote_user name = NULL) int
POLARX_FUNCTION(polarx_clean) {
  const Oid node = polarx::NodeArgument(fcinfo, 0);
  const char* remote_user = PG_ARGISNULL(1) ? nullptr : NameStr(*PG_GETARG_NAME(1));
  PG_RETURN_INT32(static_cast<int32>(polarx::ClientClean(node, remote_user)));
}

// pause(node name = NULL) void
POLARX_FUNCTION(polarx_pause) {
  polarx::ClientPause(polarx::NodeArgument(fcinfo, 0), true);
  PG_RETURN_VOID();
}

// resume(node name = NULL) void
POLARX_FUNCTION(polarx_resume) {
  polarx::ClientPause(polarx::NodeArgument(fcinfo, 0), false);
  PG_RETURN_VOID();
}

// terminate(node name = NULL) int
POLARX_FUNCTION(polarx_terminate) {
  const Oid node = polarx::NodeArgument(fcinfo, 0);
  const char* name = OidIsValid(node) ? NameStr(*PG_GETARG_NAME(0)) : nullptr;
  int count = 0;
  int* pids = polarx::ClientHolders(name, &count);
  count = polarx::CheckMayEnd(pids, count);
  PG_RETURN_INT32(polarx::Terminate(pids, count));
}

// check() bool
POLARX_FUNCTION(polarx_check) {
  (void)fcinfo;
  PG_RETURN_BOOL(polarx::ClientCheckNodes());
}

// reset_stats() void
POLARX_FUNCTION(polarx_reset_stats) {
  (void)fcinfo;
  polarx::ClientResetStats();
  PG_RETURN_VOID();
}
