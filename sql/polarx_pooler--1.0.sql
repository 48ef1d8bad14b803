\echo Use "CREATE EXTENSION polarx_pooler" to load this file. \quit

CREATE SCHEMA pooler;
COMMENT ON SCHEMA pooler IS 'polarx_pooler: statements on datanodes, operation and views of the pool';
GRANT USAGE ON SCHEMA pooler TO PUBLIC;

-- Nodes and users ---------------------------------------------------------------------------------

CREATE FUNCTION pooler._fdw_validator(options text[], catalog oid) RETURNS void
LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'polarx_fdw_validator';
COMMENT ON FUNCTION pooler._fdw_validator(text[], oid)
IS 'private: checks the options of servers and user mappings';
REVOKE EXECUTE ON FUNCTION pooler._fdw_validator(text[], oid) FROM PUBLIC;

CREATE FOREIGN DATA WRAPPER polarx_pooler VALIDATOR pooler._fdw_validator;
COMMENT ON FOREIGN DATA WRAPPER polarx_pooler
IS 'datanodes of the pooler: a server is a node, a user mapping is how a role reaches it';

-- Work on datanodes: USAGE on the server and the user mapping decide who may ------------------------

CREATE FUNCTION pooler.query(node name, sql text, VARIADIC params text[] DEFAULT '{}')
RETURNS SETOF record
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'polarx_query';
COMMENT ON FUNCTION pooler.query(name, text, text[])
IS 'rows of a statement on one node';

CREATE FUNCTION pooler.exec(node name, sql text, VARIADIC params text[] DEFAULT '{}')
RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'polarx_exec';
COMMENT ON FUNCTION pooler.exec(name, text, text[])
IS 'command tag of a statement on one node';

CREATE FUNCTION pooler.query_all(sql text, VARIADIC params text[] DEFAULT '{}')
RETURNS SETOF record
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'polarx_query_all';
COMMENT ON FUNCTION pooler.query_all(text, text[])
IS 'rows of a statement on all nodes at once; the first column is the name of the node';

CREATE FUNCTION pooler.exec_all(sql text, VARIADIC params text[] DEFAULT '{}')
RETURNS TABLE (node name, command_tag text)
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'polarx_exec_all';
COMMENT ON FUNCTION pooler.exec_all(text, text[])
IS 'command tags of a statement on all nodes at once';

CREATE FUNCTION pooler.exec_autocommit(node name, sql text)
RETURNS text
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'polarx_exec_autocommit';
COMMENT ON FUNCTION pooler.exec_autocommit(name, text)
IS 'command tag of a statement on one node, outside the local transaction';

CREATE FUNCTION pooler.exec_all_autocommit(sql text)
RETURNS TABLE (node name, command_tag text)
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'polarx_exec_all_autocommit';
COMMENT ON FUNCTION pooler.exec_all_autocommit(text)
IS 'command tags of a statement on all nodes at once, outside the local transaction';

CREATE FUNCTION pooler.set_param(name text, value text, is_local bool DEFAULT false)
RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'polarx_set_param';
COMMENT ON FUNCTION pooler.set_param(text, text, bool)
IS 'set a parameter on every datanode connection that the current role has in this session';

CREATE FUNCTION pooler.reset_params() RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'polarx_reset_params';
COMMENT ON FUNCTION pooler.reset_params()
IS 'forget the parameters that set_param has set for the current role';

-- Operation: superusers, or as granted --------------------------------------------------------------

CREATE FUNCTION pooler.start() RETURNS bool
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'polarx_start';
COMMENT ON FUNCTION pooler.start()
IS 'start the pooler worker of this database';

CREATE FUNCTION pooler.stop() RETURNS bool
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'polarx_stop';
COMMENT ON FUNCTION pooler.stop()
IS 'stop the pooler worker of this database until start() or a server restart';

CREATE FUNCTION pooler.reload() RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'polarx_reload';
COMMENT ON FUNCTION pooler.reload()
IS 'let the pooler worker read nodes and settings again';

CREATE FUNCTION pooler.ping(node name DEFAULT NULL)
RETURNS TABLE (node name, ok bool, latency_ms float8, error text)
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'polarx_ping';
COMMENT ON FUNCTION pooler.ping(name)
IS 'ask one node, or all, for a sign of life';

CREATE FUNCTION pooler.clean(node name DEFAULT NULL, remote_user name DEFAULT NULL) RETURNS int
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'polarx_clean';
COMMENT ON FUNCTION pooler.clean(name, name)
IS 'close idle connections, mark leased ones to be closed at release; returns how many';

CREATE FUNCTION pooler.check() RETURNS bool
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'polarx_check';
COMMENT ON FUNCTION pooler.check()
IS 'are the nodes that the pooler worker knows those of the catalog';

CREATE FUNCTION pooler.pause(node name DEFAULT NULL) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'polarx_pause';
COMMENT ON FUNCTION pooler.pause(name)
IS 'let new requests for one node, or all, wait until resume()';

CREATE FUNCTION pooler.resume(node name DEFAULT NULL) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'polarx_resume';
COMMENT ON FUNCTION pooler.resume(name)
IS 'let the requests go that pause() holds';

CREATE FUNCTION pooler.terminate(node name DEFAULT NULL) RETURNS int
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'polarx_terminate';
COMMENT ON FUNCTION pooler.terminate(name)
IS 'end the other sessions that hold a connection to one node, or any; returns how many';

CREATE FUNCTION pooler.reset_stats() RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'polarx_reset_stats';
COMMENT ON FUNCTION pooler.reset_stats()
IS 'set counters and percentiles to zero';

REVOKE EXECUTE ON FUNCTION
    pooler.start(), pooler.stop(), pooler.reload(), pooler.ping(name), pooler.clean(name, name),
    pooler.check(), pooler.pause(name), pooler.resume(name), pooler.terminate(name),
    pooler.reset_stats()
FROM PUBLIC;

-- For the datanode's side: needs no preloaded library.
CREATE FUNCTION pooler.session_memory() RETURNS bigint
LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'polarx_session_memory';
COMMENT ON FUNCTION pooler.session_memory()
IS 'bytes in the memory contexts of this session';

-- Views: members of pg_monitor may read -------------------------------------------------------------

CREATE FUNCTION pooler._show_workers(
    OUT datid oid, OUT datname name, OUT pid int, OUT state text, OUT threads int,
    OUT socket text, OUT fds_used int, OUT fds_limit int, OUT started_at timestamptz)
RETURNS SETOF record
LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'polarx_show_workers';

CREATE FUNCTION pooler._show_nodes(
    OUT node name, OUT host text, OUT port int, OUT health text, OUT paused bool,
    OUT last_error text, OUT last_error_at timestamptz, OUT retry_at timestamptz,
    OUT ping_ms float8)
RETURNS SETOF record
LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'polarx_show_nodes';

CREATE FUNCTION pooler._show_pools(
    OUT pool bigint, OUT node name, OUT remote_user name, OUT remote_database name,
    OUT total int, OUT idle int, OUT leased int, OUT parked int, OUT connecting int,
    OUT resetting int, OUT waiting int, OUT max_size int, OUT min_size int, OUT min_free int,
    OUT acquired bigint, OUT hits bigint, OUT connects bigint, OUT connect_failures bigint,
    OUT rejected bigint, OUT closed_idle bigint, OUT closed_lifetime bigint,
    OUT closed_memory bigint, OUT closed_error bigint, OUT acquire_p50_us float8,
    OUT acquire_p95_us float8, OUT acquire_p99_us float8, OUT hold_p50_us float8,
    OUT hold_p99_us float8, OUT last_error text, OUT retry_at timestamptz,
    OUT mapped_roles name[])
RETURNS SETOF record
LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'polarx_show_pools';

CREATE FUNCTION pooler._show_connections(
    OUT slot bigint, OUT pool bigint, OUT node name, OUT remote_user name, OUT state text,
    OUT remote_pid int, OUT session_pid int, OUT created_at timestamptz,
    OUT state_since timestamptz, OUT leases bigint, OUT memory_bytes bigint,
    OUT memory_checked_at timestamptz, OUT thread int)
RETURNS SETOF record
LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'polarx_show_connections';

CREATE FUNCTION pooler._show_sessions(
    OUT pid int, OUT usename name, OUT leases int, OUT waiting_for name,
    OUT waiting_since timestamptz, OUT attached_at timestamptz)
RETURNS SETOF record
LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'polarx_show_sessions';

CREATE FUNCTION pooler._show_stats(
    OUT client_request_conn_total bigint, OUT client_request_from_hashtab bigint,
    OUT client_request_from_thread bigint, OUT acquire_conn_from_hashtab bigint,
    OUT acquire_conn_from_hashtab_and_set bigint, OUT acquire_conn_from_thread bigint,
    OUT acquire_conn_time bigint, OUT each_client_conn_request_cost_time float8,
    OUT stats_since timestamptz)
RETURNS SETOF record
LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'polarx_show_stats';

COMMENT ON FUNCTION pooler._show_workers() IS 'private: behind the view workers';
COMMENT ON FUNCTION pooler._show_nodes() IS 'private: behind the view nodes';
COMMENT ON FUNCTION pooler._show_pools() IS 'private: behind the view pools';
COMMENT ON FUNCTION pooler._show_connections() IS 'private: behind the view connections';
COMMENT ON FUNCTION pooler._show_sessions() IS 'private: behind the view sessions';
COMMENT ON FUNCTION pooler._show_stats() IS 'private: behind the view stats';

CREATE VIEW pooler.workers AS SELECT * FROM pooler._show_workers();
CREATE VIEW pooler.nodes AS SELECT * FROM pooler._show_nodes();
CREATE VIEW pooler.pools AS SELECT * FROM pooler._show_pools();
CREATE VIEW pooler.connections AS SELECT * FROM pooler._show_connections();
CREATE VIEW pooler.sessions AS SELECT * FROM pooler._show_sessions();
CREATE VIEW pooler.stats AS SELECT * FROM pooler._show_stats();

COMMENT ON VIEW pooler.workers IS 'pooler workers of all databases';
COMMENT ON VIEW pooler.nodes IS 'nodes of this database and their health';
COMMENT ON VIEW pooler.pools IS 'pools of this database: sizes, counters, latencies';
COMMENT ON VIEW pooler.connections IS 'datanode connections of this database';
COMMENT ON VIEW pooler.sessions IS 'sessions that are attached to the pooler of this database';
COMMENT ON VIEW pooler.stats IS 'counters of the stat line since the start of the pooler worker or reset_stats()';

-- A view's functions are called with the rights of its reader.
REVOKE EXECUTE ON FUNCTION
    pooler._show_workers(), pooler._show_nodes(), pooler._show_pools(),
    pooler._show_connections(), pooler._show_sessions(), pooler._show_stats()
FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    pooler._show_workers(), pooler._show_nodes(), pooler._show_pools(),
    pooler._show_connections(), pooler._show_sessions(), pooler._show_stats()
TO pg_monitor;
GRANT SELECT ON
    pooler.workers, pooler.nodes, pooler.pools, pooler.connections, pooler.sessions, pooler.stats
TO pg_monitor;

-- Asks, at commit, for the pooler worker of this database.
CREATE FUNCTION pooler.polarx_installed() RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'polarx_installed';
SELECT pooler.polarx_installed();
DROP FUNCTION pooler.polarx_installed();
