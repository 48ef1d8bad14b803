-- set_param and reset_params on one node, which is this database itself.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS polarx_pooler;
RESET client_min_messages;
SELECT split_part(current_setting('unix_socket_directories'), ',', 1) AS dir,
       current_setting('port') AS port, current_database() AS db \gset
CREATE SERVER node1 FOREIGN DATA WRAPPER polarx_pooler
  OPTIONS (host :'dir', port :'port', dbname :'db', min_pool_size '0', min_free_size '0');
CREATE USER MAPPING FOR CURRENT_USER SERVER node1;
PREPARE there AS
  SELECT * FROM pooler.query('node1', 'SELECT current_setting(''work_mem''),
    current_setting(''my.own'', true), current_setting(''search_path'')')
  AS t(work_mem text, my_own text, search_path text);

EXECUTE there;
SELECT pooler.set_param('work_mem', '5MB');
SELECT pooler.set_param('my.own', 'it''s; "mine"');
EXECUTE there;
SHOW work_mem;

-- Also where work has begun already.
BEGIN;
EXECUTE there;
SELECT pooler.set_param('Work_Mem', '6MB');
EXECUTE there;
SELECT pooler.set_param('search_path', 'pg_catalog, "x y"', true);
EXECUTE there;
COMMIT;
EXECUTE there;

-- Undone with the (sub)transaction.
BEGIN;
SELECT pooler.set_param('work_mem', '7MB');
SAVEPOINT a;
SELECT pooler.set_param('work_mem', '8MB', true);
EXECUTE there;
SAVEPOINT b;
SELECT pooler.reset_params();
EXECUTE there;
ROLLBACK TO b;
EXECUTE there;
RELEASE a;
EXECUTE there;
ROLLBACK;
EXECUTE there;
BEGIN;
SAVEPOINT a;
SELECT pooler.set_param('work_mem', '9MB');
RELEASE a;
COMMIT;
EXECUTE there;

-- Refused at once, and not remembered.
SELECT pooler.set_param(NULL, 'x');
\echo :SQLSTATE
SELECT pooler.set_param('work_mem', NULL);
\echo :SQLSTATE
SELECT pooler.set_param('role', 'postgres');
\echo :SQLSTATE
SELECT pooler.set_param('Session_Authorization', 'postgres');
\echo :SQLSTATE
SELECT pooler.set_param('client_encoding', 'LATIN1');
\echo :SQLSTATE
SELECT pooler.set_param('transaction_isolation', 'serializable');
\echo :SQLSTATE
SELECT pooler.set_param('work_mum', '1MB');
\echo :SQLSTATE
SELECT pooler.set_param('work_mem', 'a lot');
\echo :SQLSTATE
\set VERBOSITY sqlstate
SELECT pooler.set_param('work_mem', '1kB');
\set VERBOSITY default
SELECT pooler.set_param('my.1own', 'x');
\echo :SQLSTATE
SELECT pooler.set_param('shared_buffers', '1GB');
\echo :SQLSTATE
SELECT pooler.set_param('log_connections', 'on');
\echo :SQLSTATE
SELECT pooler.set_param('server_version', '1');
\echo :SQLSTATE
EXECUTE there;

-- Styles in which values could be read wrongly are refused when they matter, as with SET.
SELECT pooler.set_param('DateStyle', 'German');
SELECT * FROM pooler.query('node1', 'SELECT date ''2026-02-03''') AS t(d text);
SELECT * FROM pooler.query('node1', 'SELECT date ''2026-02-03''') AS t(d date);
\echo :SQLSTATE

-- Statements outside the transaction have them too, the local ones included.
CREATE TABLE regress_polarx_s (work_mem text, my_own text);
CREATE FUNCTION regress_polarx_note() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO regress_polarx_s VALUES (current_setting('work_mem'), current_setting('my.own', true));
END $$;
CREATE EVENT TRIGGER regress_polarx_note ON ddl_command_end WHEN TAG IN ('COMMENT')
  EXECUTE FUNCTION regress_polarx_note();
BEGIN;
SELECT pooler.set_param('my.own', 'local', true);
SELECT pooler.exec_autocommit('node1', 'COMMENT ON TABLE regress_polarx_s IS ''noted''');
COMMIT;
DROP EVENT TRIGGER regress_polarx_note;
TABLE regress_polarx_s;

-- Forgotten.
SELECT pooler.reset_params();
EXECUTE there;
SELECT pooler.set_param('work_mem', '10MB');
EXECUTE there;
DEALLOCATE there;
DISCARD ALL;
SELECT * FROM pooler.query('node1', 'SELECT current_setting(''work_mem'')') AS t(work_mem text);

SET client_min_messages = warning;
DROP TABLE regress_polarx_s;
DROP FUNCTION regress_polarx_note;
DROP SERVER node1 CASCADE;
