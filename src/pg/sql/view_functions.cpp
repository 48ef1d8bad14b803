// The functions behind the views nodes, pools, connections, sessions and stats, and version(); in a
// backend, on its only thread.
#include "core/protocol.h"

#include "pg/base/version.h"
#include "pg/session/requests.h"
#include "pg/shared/registry.h"
#include "pg/prelude.h"

namespace {

Datum Show(FunctionCallInfo fcinfo, polarx::protocol::View view) {
  polarx::RegistryRequire();
  InitMaterializedSRF(fcinfo, 0);
  polarx::ClientShow(view, reinterpret_cast<ReturnSetInfo*>(fcinfo->resultinfo));
  return 0;
}

}  // namespace

POLARX_FUNCTION(polarx_show_nodes) { return Show(fcinfo, polarx::protocol::View::kNodes); }

POLARX_FUNCTION(polarx_show_pools) { return Show(fcinfo, polarx::protocol::View::kPools); }

POLARX_FUNCTION(polarx_show_connections) {
  return Show(fcinfo, polarx::protocol::View::kConnections);
}

POLARX_FUNCTION(polarx_show_sessions) { return Show(fcinfo, polarx::protocol::View::kSessions); }

POLARX_FUNCTION(polarx_show_stats) { return Show(fcinfo, polarx::protocol::View::kStats); }

// version(): works without preloading, too.
POLARX_FUNCTION(polarx_version) {
  (void)fcinfo;
  PG_RETURN_TEXT_P(cstring_to_text(polarx::kVersionText));
}
