\echo Use "CREATE EXTENSION polarx_bench" to load this file. \quit

-- All loops prepare themselves, wait until start_at (seconds since 1970) and run for that many
-- seconds. They return how many operations that were, and percentiles of one operation's time.

-- Acquires one connection to each node in one request, reads one row of the table item on each if
-- told so, and releases them; then pauses.
CREATE FUNCTION bench_acquire(nodes name[], read_row bool, start_at float8, seconds float8,
  pause_us int, OUT operations bigint, OUT p50_us float8, OUT p99_us float8)
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME';

-- Acquires the connection that the same session has parked, again and again; only that is timed, not
-- the release that parks it.
CREATE FUNCTION bench_retake(node name, start_at float8, seconds float8,
  OUT operations bigint, OUT p50_us float8, OUT p99_us float8)
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME';

-- Opens a connection with libpq, reads one row if told so, and closes it.
CREATE FUNCTION bench_connect(conninfo text, read_row bool, start_at float8, seconds float8,
  OUT operations bigint, OUT p50_us float8, OUT p99_us float8)
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME';

-- Reads one of the first `rows` rows of the table item by its primary key, again and again: on one
-- connection lent by the pooler for the whole loop (node), or opened by libpq (conninfo).
CREATE FUNCTION bench_statements(node name, conninfo text, rows int, start_at float8,
  seconds float8, OUT operations bigint, OUT p50_us float8, OUT p99_us float8)
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME';
