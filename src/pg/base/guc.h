// The parameters of prefix "pooler": defined at load, read by every process of the server on its
// main thread.
#pragma once

#include "core/settings.h"

namespace polarx {

// Times are in seconds where nothing else is said.
struct ParameterValues {
  bool persistent_datanode_connections;
  bool park_leases;
  bool detect_deadlocks;
  // -1 stands for never.
  int pool_conn_keepalive;
  int pool_maintenance_timeout;
  int max_pool_size;
  int min_pool_size;
  int min_free_size;
  int port;
  // -1 switches the stat lines off.
  int pool_print_stat_timeout;
  int pooler_scale_factor;
  int pooler_dn_set_timeout;
  // In MB.
  int pool_session_memory_limit;
  int pool_session_max_lifetime;
  int pool_session_context_check_gap;
  int pooler_connect_timeout;
  // In milliseconds.
  int queue_timeout;
  int savepoint_timeout;
  // 0 switches the warnings off.
  int lease_warn_after;
  char* reset_query;
  char* warmup_query;
};

extern ParameterValues parameters;

// Defines all parameters and reserves the prefix. _PG_init calls it.
void DefineParameters();

// Copies what the engine needs; the pooler worker calls it. No ereport.
Settings CurrentSettings();

}  // namespace polarx
