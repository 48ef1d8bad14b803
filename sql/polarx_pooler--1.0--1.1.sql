\echo Use "ALTER EXTENSION polarx_pooler UPDATE TO '1.1'" to load this file. \quit

CREATE FUNCTION pooler.version() RETURNS text
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'polarx_version';
COMMENT ON FUNCTION pooler.version()
IS 'version of the library that is loaded';

CREATE FUNCTION pooler._show_stats_1_1(
    OUT client_request_conn_total bigint, OUT client_request_from_hashtab bigint,
    OUT client_request_from_thread bigint, OUT acquire_conn_from_hashtab bigint,
    OUT acquire_conn_from_hashtab_and_set bigint, OUT acquire_conn_from_thread bigint,
    OUT acquire_conn_time bigint, OUT each_client_conn_request_cost_time float8,
    OUT stats_since timestamptz, OUT partial_commits bigint,
    OUT deadlock_checks bigint, OUT deadlocks bigint)
RETURNS SETOF record
LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'polarx_show_stats';
COMMENT ON FUNCTION pooler._show_stats_1_1() IS 'private: behind the view stats';

CREATE OR REPLACE VIEW pooler.stats AS SELECT * FROM pooler._show_stats_1_1();
REVOKE EXECUTE ON FUNCTION pooler._show_stats_1_1() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pooler._show_stats_1_1() TO pg_monitor;
