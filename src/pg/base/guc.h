// The parameters of prefix "pooler": defined at load, read by every process of the server on its
// main thread.
#pragma once

#include "core/settings.h"

namespace polarx {

struct ParameterValues {
  bool persistent_datanode_connections;
  bool park_leases;
  int pool_conn_keepalive;          // s, -1 never
  int pool_maintenance_timeout;     // s, -1 never
  int max_pool_size;
  int min_pool_size;
  int min_free_size;
  int port;
  int pool_print_stat_timeout;      // s, -1 off
  int pooler_scale_factor;
  int pooler_dn_set_timeout;        // s
  int pool_session_memory_limit;    // MB
  int pool_session_max_lifetime;    // s
  int pool_session_context_check_gap;  // s
  int pooler_connect_timeout;       // s
  int queue_timeout;                // ms
  int lease_warn_after;             // s, 0 off
  char* reset_query;
  char* warmup_query;
};

extern ParameterValues parameters;

// _PG_init only. Defines all parameters and reserves the prefix.
void DefineParameters();

// Copies what the engine needs. No ereport.
Settings CurrentSettings();

}  // namespace polarx
