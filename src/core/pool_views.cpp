// The rows of the views, from the book-keeping; pure functions.
#include "core/pool_views.h"

#include <cstdio>

namespace polarx {
namespace {

using Value = std::optional<std::string>;

std::string Number(double value) {
  char text[40];
  std::snprintf(text, sizeof(text), "%.1f", value);
  return text;
}

Value RetryAt(const HoldOff& hold_off, const WallClock& clock) {
  return hold_off.active() ? TimestampText(hold_off.retry_at(), clock) : Value();
}

Value LastError(const HoldOff& hold_off) {
  return hold_off.status().ok() ? Value() : Value(hold_off.status().message());
}

// The later of the node's and the pool's own trouble.
const HoldOff& Relevant(const Pool& pool) {
  const HoldOff& node = pool.node->hold_off;
  return pool.hold_off.active() || (!node.active() && node.status().ok()) ? pool.hold_off : node;
}

}  // namespace

std::optional<std::string> TimestampText(TimePoint time, const WallClock& clock) {
  if (time == TimePoint{}) {
    return std::nullopt;
  }
  const std::int64_t microseconds = clock.unix_microseconds + (time - clock.steady).count();
  const std::chrono::sys_time<std::chrono::microseconds> wall{
      std::chrono::microseconds(microseconds)};
  const auto day = std::chrono::floor<std::chrono::days>(wall);
  const std::chrono::year_month_day date{day};
  const std::chrono::hh_mm_ss<std::chrono::microseconds> clock_time{wall - day};
  char text[64];
  std::snprintf(text, sizeof(text), "%04d-%02u-%02u %02d:%02d:%02d.%06d+00",
                static_cast<int>(date.year()), static_cast<unsigned>(date.month()),
                static_cast<unsigned>(date.day()), static_cast<int>(clock_time.hours().count()),
                static_cast<int>(clock_time.minutes().count()),
                static_cast<int>(clock_time.seconds().count()),
                static_cast<int>(clock_time.subseconds().count()));
  return text;
}

std::string ArrayText(const std::vector<std::string>& values) {
  std::string text = "{";
  for (const std::string& value : values) {
    text += text.size() > 1 ? ",\"" : "\"";
    for (char c : value) {
      if (c == '"' || c == '\\') {
        text += '\\';
      }
      text += c;
    }
    text += '"';
  }
  return text + "}";
}

protocol::Row NodeRow(const Node& node, const WallClock& clock) {
  const NodeDefinition& definition = node.definition;
  const HoldOff& hold_off = node.hold_off;
  return {definition.name,
          definition.host.empty() ? Value() : Value(definition.host),
          std::to_string(definition.port),
          hold_off.active() ? "down"
          : node.known_up   ? "up"
                            : "unknown",
          node.paused ? "t" : "f",
          LastError(hold_off),
          TimestampText(hold_off.failed_at(), clock),
          RetryAt(hold_off, clock),
          node.ping_ms < 0 ? Value() : Value(std::to_string(node.ping_ms))};
}

protocol::Row PoolRow(const Pool& pool, const WallClock& clock) {
  const Sizes sizes = pool.sizes();
  const Limits limits = pool.node->limits;
  const PoolCounters& counters = pool.counters;
  const HoldOff& trouble = Relevant(pool);
  protocol::Row row{std::to_string(pool.id), pool.node->definition.name, pool.remote_user,
                    pool.remote_database};
  const int leased = pool.count(SlotState::kLeased) - pool.parked;
  const int resetting = sizes.resetting + pool.count(SlotState::kClosing);
  for (int value :
       {sizes.total, sizes.idle, leased, pool.parked, sizes.connecting, resetting,
        static_cast<int>(pool.queue.size()), limits.max_size, limits.min_size, limits.min_free}) {
    row.emplace_back(std::to_string(value));
  }
  for (std::uint64_t value :
       {counters.acquired, counters.hits, counters.connects, counters.connect_failures,
        counters.rejected, counters.closed_idle, counters.closed_lifetime, counters.closed_memory,
        counters.closed_error}) {
    row.emplace_back(std::to_string(value));
  }
  for (double value : {pool.acquire_time.Percentile(0.5), pool.acquire_time.Percentile(0.95),
                       pool.acquire_time.Percentile(0.99), pool.hold_time.Percentile(0.5),
                       pool.hold_time.Percentile(0.99)}) {
    row.emplace_back(Number(value));
  }
  row.push_back(LastError(trouble));
  row.push_back(RetryAt(trouble, clock));
  row.emplace_back(ArrayText(pool.mapped_roles));
  return row;
}

protocol::Row ConnectionRow(const Slot& slot, int session_pid, const WallClock& clock) {
  const Pool& pool = *slot.pool;
  return {
      std::to_string(slot.id),
      std::to_string(pool.id),
      pool.node->definition.name,
      pool.remote_user,
      slot.parked() ? "parked" : SlotStateName(slot.state),
      slot.connection.remote_pid == 0 ? Value() : Value(std::to_string(slot.connection.remote_pid)),
      slot.lease.session == 0 ? Value() : Value(std::to_string(session_pid)),
      TimestampText(slot.age.created_at, clock),
      TimestampText(slot.state_since, clock),
      std::to_string(slot.age.leases),
      slot.age.memory_bytes ? Value(std::to_string(*slot.age.memory_bytes)) : Value(),
      slot.age.memory_bytes ? TimestampText(slot.age.checked_at, clock) : Value(),
      std::to_string(slot.connection.thread)};
}

protocol::Row StatsRow(const RequestCounters& counters, TimePoint since,
                       const EventCounters& events, const WallClock& clock) {
  protocol::Row row;
  for (std::uint64_t value :
       {counters.client_request_conn_total, counters.client_request_from_hashtab,
        counters.client_request_from_thread, counters.acquire_conn_from_hashtab,
        counters.acquire_conn_from_hashtab_and_set, counters.acquire_conn_from_thread,
        counters.acquire_conn_time_us}) {
    row.emplace_back(std::to_string(value));
  }
  row.emplace_back(Number(counters.EachRequestCostUs()));
  row.push_back(TimestampText(since, clock));
  for (std::uint64_t value : {events.partial_commits, events.deadlock_checks, events.deadlocks}) {
    row.emplace_back(std::to_string(value));
  }
  return row;
}

PoolFigures FiguresSinceLastLine(const Pool& pool) {
  const Sizes sizes = pool.sizes();
  const Histogram acquire_time = pool.acquire_time.Since(pool.printed_acquire_time);
  PoolFigures figures;
  figures.node = pool.node->definition.name;
  figures.user = pool.remote_user;
  figures.total = sizes.total;
  figures.idle = sizes.idle;
  figures.leased = pool.count(SlotState::kLeased) - pool.parked;
  figures.parked = pool.parked;
  figures.connecting = sizes.connecting;
  figures.waiting = static_cast<int>(pool.queue.size());
  figures.acquired = pool.counters.acquired - pool.printed_counters.acquired;
  figures.rejected = pool.counters.rejected - pool.printed_counters.rejected;
  figures.acquire_p50_us = acquire_time.Percentile(0.5);
  figures.acquire_p99_us = acquire_time.Percentile(0.99);
  return figures;
}

}  // namespace polarx
