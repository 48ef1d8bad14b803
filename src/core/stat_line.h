// The text of the stat lines in the server log, and the figures in them; pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace polarx {

// The counters of the database's stat line. Names and meaning are those of the original pooler.
struct RequestCounters {
  std::uint64_t client_request_conn_total = 0;          // acquire requests
  std::uint64_t client_request_from_hashtab = 0;        // answered at once with idle slots
  std::uint64_t client_request_from_thread = 0;         // had to wait for a worker thread
  std::uint64_t acquire_conn_from_hashtab = 0;          // slots lent that were idle
  std::uint64_t acquire_conn_from_hashtab_and_set = 0;  // the same, session parameters replayed
  std::uint64_t acquire_conn_from_thread = 0;           // slots lent after a wait
  std::uint64_t acquire_conn_time_us = 0;  // sum of the waits of client_request_from_thread

  // A counter that is smaller than in `earlier` was reset meanwhile and counts whole.
  RequestCounters Since(const RequestCounters& earlier) const;
  // acquire_conn_time / client_request_conn_total; 0 without requests.
  double EachRequestCostUs() const;
};

// What else is counted for the database.
struct EventCounters {
  std::uint64_t partial_commits = 0;  // transactions committed on some nodes and not everywhere
  std::uint64_t deadlock_checks = 0;  // questions to nodes, who is in whose way there
  std::uint64_t deadlocks = 0;        // circles of waits that were broken
};

struct PoolFigures {
  std::string node, user;
  int total = 0, idle = 0, leased = 0, parked = 0, connecting = 0, waiting = 0;
  std::uint64_t acquired = 0, rejected = 0;
  double acquire_p50_us = 0, acquire_p99_us = 0;
};

// `value` itself if it is one or more of [A-Za-z0-9_.], else in double quotes, with \ before " and
// \ and as \n, \r, \t, \xHH for control characters: one line, whatever the name.
std::string QuoteStatValue(std::string_view value);

// "[pooler stat] database=… client_request_conn_total=… … each_client_conn_request_cost_time=… us"
std::string DatabaseStatLine(std::string_view database, const RequestCounters& since_last);
// "[pooler stat] database=… node=… user=… total=… … acquire_p99_us=…"
std::string PoolStatLine(std::string_view database, const PoolFigures& figures);

}  // namespace polarx
