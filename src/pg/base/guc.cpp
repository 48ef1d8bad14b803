// The parameters of prefix "pooler" are defined here; every process of the server, main thread.
#include <chrono>
#include <climits>

#include "pg/base/guc.h"

#include "pg/prelude.h"

namespace polarx {

ParameterValues parameters;

namespace {

constexpr int kMaxPoolSize = 65535;

// A warmed-up session has parsed and planned a query and knows the catalogs that every query needs.
constexpr const char* kWarmupQuery =
    "SELECT count(*) FROM pg_catalog.pg_class c"
    " JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid"
    " JOIN pg_catalog.pg_type t ON t.oid = a.atttypid"
    " WHERE c.oid = 'pg_catalog.pg_class'::pg_catalog.regclass";

struct IntParameter {
  const char* name;
  const char* description;
  const char* details;
  int* value;
  int initial;
  int min;
  int max;
  GucContext context;
  int unit;  // GUC_UNIT_… or 0
};

const IntParameter kIntParameters[] = {
    {"pooler.lease_warn_after", "Logs a connection that a session holds for longer than this.",
     "Once for each lease, with the session's process id, role and query; 0 turns it off.",
     &parameters.lease_warn_after, 0, 0, INT_MAX, PGC_SIGHUP, GUC_UNIT_S},
    {"pooler.max_pool_size", "Most connections to one datanode from one database.",
     "Counted over all pools of the node; a server's option of the same name stands above it.",
     &parameters.max_pool_size, 300, 1, kMaxPoolSize, PGC_SIGHUP, 0},
    {"pooler.min_free_size", "Idle connections kept in reserve while a pool is in use.",
     "A server's option of the same name stands above it.", &parameters.min_free_size, 5, 0,
     kMaxPoolSize, PGC_SIGHUP, 0},
    {"pooler.min_pool_size", "Connections that a pool has at least.",
     "A server's option of the same name stands above it.", &parameters.min_pool_size, 5, 0,
     kMaxPoolSize, PGC_SIGHUP, 0},
    {"pooler.pool_conn_keepalive", "Closes a connection that was idle for so long.",
     "Down to what min_pool_size and min_free_size ask for; -1 means never.",
     &parameters.pool_conn_keepalive, 60, -1, INT_MAX, PGC_SIGHUP, GUC_UNIT_S},
    {"pooler.pool_maintenance_timeout", "Interval of the maintenance of pools.", "-1 means never.",
     &parameters.pool_maintenance_timeout, 10, -1, INT_MAX, PGC_SIGHUP, GUC_UNIT_S},
    {"pooler.pool_print_stat_timeout", "Interval of the stat lines in the server log.",
     "-1 turns them off.", &parameters.pool_print_stat_timeout, 60, -1, INT_MAX, PGC_SIGHUP,
     GUC_UNIT_S},
    {"pooler.pool_session_context_check_gap",
     "A datanode session's memory is measured that long after the last time.", nullptr,
     &parameters.pool_session_context_check_gap, 120, 10, 7200, PGC_SIGHUP, GUC_UNIT_S},
    {"pooler.pool_session_max_lifetime", "Replaces a connection that is older than this.",
     "When it is idle at once, when it is leased at its release.",
     &parameters.pool_session_max_lifetime, 300, 1, INT_MAX, PGC_SIGHUP, GUC_UNIT_S},
    {"pooler.pool_session_memory_limit", "Closes a datanode session that uses more memory.",
     nullptr, &parameters.pool_session_memory_limit, 10, 1, 10000, PGC_SIGHUP, GUC_UNIT_MB},
    {"pooler.pooler_connect_timeout", "Longest time to open one connection to a datanode.",
     "Name lookup and authentication included.", &parameters.pooler_connect_timeout, 10, 1, 3600,
     PGC_SIGHUP, GUC_UNIT_S},
    {"pooler.pooler_dn_set_timeout",
     "Longest wait for a datanode's answer to what the pooler itself sends.",
     "Then the connection is closed.", &parameters.pooler_dn_set_timeout, 10, 1, 3600, PGC_SIGHUP,
     GUC_UNIT_S},
    {"pooler.pooler_scale_factor", "Worker threads of each pooler worker.", nullptr,
     &parameters.pooler_scale_factor, 2, 1, 64, PGC_POSTMASTER, 0},
    {"pooler.port", "Service port of the pooler workers.",
     "It is part of the name of their Unix sockets.", &parameters.port, 6667, 1, 65535,
     PGC_POSTMASTER, 0},
    {"pooler.queue_timeout", "Longest wait for a free connection where all are leased.",
     "0 rejects the request at once.", &parameters.queue_timeout, 0, 0, INT_MAX, PGC_USERSET,
     GUC_UNIT_MS},
    {"pooler.savepoint_timeout",
     "Longest wait, after an error inside a savepoint, for a datanode to become usable again.",
     "Then the transaction on it is lost; 0 does not wait.", &parameters.savepoint_timeout, 10000,
     0, INT_MAX, PGC_USERSET, GUC_UNIT_MS},
};

// The server ends a process that defines a postmaster's parameter later than preloading. There is
// no pooler in such a process: what it shows only has to agree with the configuration file.
GucContext AllowedContext(GucContext context) {
  return context == PGC_POSTMASTER && !process_shared_preload_libraries_in_progress ? PGC_SIGHUP
                                                                                   : context;
}

}  // namespace

void DefineParameters() {
  for (const IntParameter& parameter : kIntParameters) {
    DefineCustomIntVariable(parameter.name, parameter.description, parameter.details,
                            parameter.value, parameter.initial, parameter.min, parameter.max,
                            AllowedContext(parameter.context), parameter.unit, nullptr, nullptr,
                            nullptr);
  }
  DefineCustomBoolVariable(
      "pooler.persistent_datanode_connections",
      "A session keeps the connections that it has acquired until it ends.",
      "One that is marked to be closed goes at the end of the transaction all the same.",
      &parameters.persistent_datanode_connections, false, PGC_USERSET, 0, nullptr, nullptr,
      nullptr);
  DefineCustomBoolVariable(
      "pooler.park_leases",
      "A session keeps a connection that it does not use until another one needs it.",
      "As it is where all its statements were SELECT, INSERT, UPDATE, DELETE or MERGE, else reset.",
      &parameters.park_leases, true, PGC_USERSET, 0, nullptr, nullptr, nullptr);
  DefineCustomBoolVariable(
      "pooler.detect_deadlocks",
      "Sessions that wait for each other over several nodes are found, and one of them is stopped.",
      "The nodes are asked once a session has waited for longer than deadlock_timeout.",
      &parameters.detect_deadlocks, true, PGC_SIGHUP, 0, nullptr, nullptr, nullptr);
  DefineCustomStringVariable("pooler.reset_query",
                             "Statements that a connection runs between two sessions.",
                             "An empty one still makes one verifying round trip.",
                             &parameters.reset_query, "DISCARD ALL", PGC_SIGHUP, 0, nullptr,
                             nullptr, nullptr);
  DefineCustomStringVariable("pooler.warmup_query",
                             "Statements that a new connection runs before it is lent.",
                             "They fill its catalog caches; an empty text turns this off.",
                             &parameters.warmup_query, kWarmupQuery, PGC_SIGHUP, 0, nullptr,
                             nullptr, nullptr);
  MarkGUCPrefixReserved("pooler");
}

Settings CurrentSettings() {
  using std::chrono::seconds;
  Settings settings;
  settings.pool_conn_keepalive = seconds(parameters.pool_conn_keepalive);
  settings.pool_maintenance_timeout = seconds(parameters.pool_maintenance_timeout);
  settings.max_pool_size = parameters.max_pool_size;
  settings.min_pool_size = parameters.min_pool_size;
  settings.min_free_size = parameters.min_free_size;
  settings.pool_print_stat_timeout = seconds(parameters.pool_print_stat_timeout);
  settings.pooler_dn_set_timeout = seconds(parameters.pooler_dn_set_timeout);
  settings.pool_session_memory_limit_mb = parameters.pool_session_memory_limit;
  settings.pool_session_max_lifetime = seconds(parameters.pool_session_max_lifetime);
  settings.pool_session_context_check_gap = seconds(parameters.pool_session_context_check_gap);
  settings.pooler_connect_timeout = seconds(parameters.pooler_connect_timeout);
  settings.lease_warn_after = seconds(parameters.lease_warn_after);
  settings.reset_query = parameters.reset_query;
  settings.warmup_query = parameters.warmup_query;
  settings.detect_deadlocks = parameters.detect_deadlocks;
  settings.deadlock_timeout = std::chrono::milliseconds(DeadlockTimeout);
  return settings;
}

}  // namespace polarx
