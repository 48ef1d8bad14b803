// The SQL functions reload, ping, clean and session_memory; in a backend, on its only thread.
#include "client.h"
#include "prelude.h"

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
  const Oid node =
      PG_ARGISNULL(0) ? InvalidOid : polarx::ClientFindNode(NameStr(*PG_GETARG_NAME(0)));
  const char* remote_user = PG_ARGISNULL(1) ? nullptr : NameStr(*PG_GETARG_NAME(1));
  PG_RETURN_INT32(static_cast<int32>(polarx::ClientClean(node, remote_user)));
}
