// The parameters as a value: the pg side copies the server's settings into it, nobody else reads
// them. Read by the main thread; worker threads get single values with their orders.
#pragma once

#include <chrono>
#include <string>

namespace polarx {

// Seconds of a parameter whose -1 means "never".
inline constexpr std::chrono::seconds kOff{-1};

// Defaults are those of the parameters.
struct Settings {
  std::chrono::seconds pool_conn_keepalive{60};       // kOff: never
  std::chrono::seconds pool_maintenance_timeout{10};  // kOff: never
  int max_pool_size = 300;
  int min_pool_size = 5;
  int min_free_size = 5;
  std::chrono::seconds pool_print_stat_timeout{60};  // kOff: no lines
  std::chrono::seconds pooler_dn_set_timeout{10};
  int pool_session_memory_limit_mb = 10;
  std::chrono::seconds pool_session_max_lifetime{300};
  std::chrono::seconds pool_session_context_check_gap{120};
  std::chrono::seconds pooler_connect_timeout{10};
  std::chrono::seconds lease_warn_after{0};  // 0: no warnings
  std::string reset_query = "DISCARD ALL";
  std::string warmup_query;
  bool detect_deadlocks = true;
  std::chrono::milliseconds deadlock_timeout{1000};  // the server's
};

}  // namespace polarx
