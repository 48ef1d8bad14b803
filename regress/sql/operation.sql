-- Operation functions and views. The node is this database itself.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS polarx_pooler;
RESET client_min_messages;
SELECT split_part(current_setting('unix_socket_directories'), ',', 1) AS dir,
       current_setting('port') AS port, current_database() AS db \gset
CREATE SERVER node1 FOREIGN DATA WRAPPER polarx_pooler
  OPTIONS (host :'dir', port :'port', dbname :'db', max_pool_size '2', min_pool_size '0',
           min_free_size '0');
CREATE USER MAPPING FOR CURRENT_USER SERVER node1;

-- Runs a statement until it returns true.
CREATE FUNCTION regress_polarx_await(condition text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  deadline CONSTANT timestamptz := clock_timestamp() + interval '30 s';
  come bool;
BEGIN
  LOOP
    EXECUTE condition INTO come;
    IF come THEN RETURN 'yes'; END IF;
    IF clock_timestamp() > deadline THEN RETURN 'not within 30 s'; END IF;
    PERFORM pg_sleep(0.01);
  END LOOP;
END $$;

-- The columns of the views are a contract.
\pset format unaligned
SELECT table_name || ': ' || string_agg(column_name || ' ' || c.udt_name, ', '
         ORDER BY ordinal_position) AS columns
FROM information_schema.columns c
WHERE table_schema = 'pooler'
GROUP BY table_name ORDER BY table_name COLLATE "C";

\pset format aligned
\x on

-- A lease in the views.
BEGIN;
SELECT pid AS remote_pid FROM pooler.query('node1', 'SELECT pg_backend_pid()') AS t(pid int) \gset
SELECT state, threads = current_setting('pooler.pooler_scale_factor')::int AS threads,
       socket LIKE current_setting('data_directory') || '/%' AS absolute,
       fds_used > 0 AS fds_used, fds_limit > fds_used AS fds_limit, started_at < clock_timestamp() AS started
FROM pooler.workers WHERE datname = current_database() AND pid <> pg_backend_pid();
SELECT node, host = :'dir' AS host, port = :'port' AS port, health, paused, last_error, retry_at
FROM pooler.nodes;
SELECT node, remote_user = current_user AS remote_user, remote_database = :'db' AS database,
       total, idle, leased, parked, connecting, resetting, waiting, max_size, min_size, min_free,
       acquired, hits, connects, connect_failures, rejected, last_error, retry_at,
       mapped_roles = ARRAY[current_user] AS mapped_roles
FROM pooler.pools;
SELECT c.node, state, remote_pid = :remote_pid AS remote_pid,
       session_pid = pg_backend_pid() AS session_pid, leases, c.pool = p.pool AS pool
FROM pooler.connections c, pooler.pools p;
SELECT usename = session_user AS usename, leases, waiting_for, waiting_since,
       attached_at <= clock_timestamp() AS attached_at
FROM pooler.sessions WHERE pid = pg_backend_pid();
COMMIT;
\x off
SELECT regress_polarx_await('SELECT parked = 1 AND total = 1 AND acquired = 1 FROM pooler.pools');
SET pooler.park_leases = off;
SELECT regress_polarx_await('SELECT idle = 1 AND total = 1 AND acquired = 1 FROM pooler.pools');
SELECT client_request_conn_total >= 1 AS total, acquire_conn_from_hashtab >= 0 AS from_hashtab,
       acquire_conn_from_thread >= 1 AS from_thread, acquire_conn_time > 0 AS time,
       each_client_conn_request_cost_time > 0 AS each_time, stats_since < clock_timestamp() AS since
FROM pooler.stats;

-- The limit; the pool works on after a release.
CREATE ROLE regress_polarx_a LOGIN SUPERUSER;
CREATE ROLE regress_polarx_b LOGIN SUPERUSER;
CREATE USER MAPPING FOR regress_polarx_a SERVER node1;
CREATE USER MAPPING FOR regress_polarx_b SERVER node1;
BEGIN;
SELECT pooler.exec('node1', 'SELECT 1');
SET LOCAL ROLE regress_polarx_a;
SELECT pooler.exec('node1', 'SELECT 1');
SET LOCAL ROLE regress_polarx_b;
\set VERBOSITY terse
SELECT pooler.exec('node1', 'SELECT 1');
\set VERBOSITY default
\echo :SQLSTATE
ROLLBACK;
SELECT regress_polarx_await('SELECT sum(leased + resetting) = 0 FROM pooler.pools');
SET ROLE regress_polarx_b;
SELECT pooler.exec('node1', 'SELECT 1');
RESET ROLE;

-- clean closes what is idle, and what is leased at its release.
SELECT regress_polarx_await('SELECT sum(idle) = 2 FROM pooler.pools');
SELECT pooler.clean('node1', 'nobody');
SELECT pooler.clean('nowhere');
\echo :SQLSTATE
SELECT pooler.clean('node1');
SELECT regress_polarx_await('SELECT sum(total) = 0 FROM pooler.pools');
BEGIN;
SELECT pooler.exec('node1', 'SELECT 1');
SELECT pooler.clean();
SELECT pooler.exec('node1', 'SELECT 1');
COMMIT;
SELECT regress_polarx_await('SELECT sum(total) = 0 FROM pooler.pools');

-- A node that is down; ping.
CREATE SERVER node2 FOREIGN DATA WRAPPER polarx_pooler
  OPTIONS (host '/nonexistent', port '5432', min_pool_size '0', min_free_size '0');
CREATE USER MAPPING FOR CURRENT_USER SERVER node2;
\set VERBOSITY terse
SELECT pooler.exec('node2', 'SELECT 1');
\set VERBOSITY default
\echo :SQLSTATE
SELECT health, last_error, last_error_at <= clock_timestamp() AS at
FROM pooler.nodes WHERE node = 'node2';
SELECT node, ok, latency_ms > 0 AS latency, error FROM pooler.ping('node1');
SELECT node, ok, latency_ms > 0 AS latency, error FROM pooler.ping();
SELECT * FROM pooler.ping('nowhere');
\echo :SQLSTATE
SELECT pooler.exec('node1', 'SELECT 1');
SELECT pooler.reload();

-- check: the nodes are those of the catalog, as this transaction sees it.
SELECT pooler.check();
BEGIN;
ALTER SERVER node2 OPTIONS (SET port '5433');
SELECT pooler.check();
COMMIT;
SELECT pooler.check();

-- pause lets new requests wait, while what is leased goes on.
BEGIN;
SELECT pooler.exec('node1', 'SELECT 1');
SELECT pooler.pause('node1');
SELECT node, paused FROM pooler.nodes ORDER BY node;
SELECT pooler.exec('node1', 'SELECT 1, 2');
COMMIT;
SET pooler.queue_timeout = '100ms';
\set VERBOSITY sqlstate
SELECT pooler.exec('node1', 'SELECT 1');
\set VERBOSITY default
RESET pooler.queue_timeout;
SELECT pooler.resume();
SELECT node, paused FROM pooler.nodes ORDER BY node;
SELECT pooler.exec('node1', 'SELECT 1');
SELECT pooler.pause('nowhere');
SELECT pooler.resume('nowhere');

-- terminate spares the caller.
BEGIN;
SELECT pooler.exec('node1', 'SELECT 1');
SELECT pooler.terminate('node1'), pooler.terminate();
COMMIT;
SELECT pooler.terminate('nowhere');

-- reset_stats
SELECT regress_polarx_await('SELECT sum(leased + resetting) = 0 FROM pooler.pools');
SELECT pooler.reset_stats();
SELECT sum(acquired + hits + connects + connect_failures + rejected + closed_idle + closed_lifetime
           + closed_memory + closed_error) AS counters, max(acquire_p99_us) AS acquire, max(hold_p99_us) AS hold
FROM pooler.pools;
SELECT client_request_conn_total, acquire_conn_from_hashtab, acquire_conn_from_thread, acquire_conn_time,
       clock_timestamp() - stats_since < interval '1 min' AS since
FROM pooler.stats;

-- stop holds until start. A transaction that has its connection goes on.
SELECT pooler.start();
BEGIN;
SELECT pooler.exec('node1', 'SELECT 1');
SELECT pooler.stop();
SELECT pooler.exec('node1', 'SELECT 1, 2');
COMMIT;
SELECT pooler.stop();
SELECT state, pid FROM pooler.workers WHERE datname = current_database();
SELECT pooler.exec('node1', 'SELECT 1');
\echo :SQLSTATE
SELECT pooler.start();
SELECT pooler.start();
SELECT pooler.exec('node1', 'SELECT 1');

-- With nodes left the extension cannot be dropped by accident.
\set VERBOSITY terse
DROP EXTENSION polarx_pooler;
\set VERBOSITY default

SET client_min_messages = warning;
DROP FUNCTION regress_polarx_await;
DROP SERVER node1 CASCADE;
DROP SERVER node2 CASCADE;
DROP ROLE regress_polarx_a, regress_polarx_b;
