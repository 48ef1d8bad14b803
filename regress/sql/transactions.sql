-- The remote transaction follows the local one. The node is this database itself.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS polarx_pooler;
RESET client_min_messages;
SELECT split_part(current_setting('unix_socket_directories'), ',', 1) AS dir,
       current_setting('port') AS port, current_database() AS db \gset
CREATE SERVER node1 FOREIGN DATA WRAPPER polarx_pooler
  OPTIONS (host :'dir', port :'port', dbname :'db', min_pool_size '0', min_free_size '0');
CREATE USER MAPPING FOR CURRENT_USER SERVER node1;
CREATE TABLE regress_polarx_t (i int, UNIQUE (i) DEFERRABLE INITIALLY DEFERRED);
CREATE FUNCTION regress_polarx_add(i int) RETURNS text LANGUAGE sql
  RETURN pooler.exec('node1', 'INSERT INTO regress_polarx_t VALUES ($1::int)', i::text);

-- Two statements, one remote transaction; it ends with the local one.
BEGIN;
SELECT a.pid = b.pid AS same_connection, a.xid = b.xid AS same_transaction
FROM pooler.query('node1', 'SELECT pg_backend_pid(), pg_current_xact_id()') AS a(pid int, xid xid8),
     pooler.query('node1', 'SELECT pg_backend_pid(), pg_current_xact_id()') AS b(pid int, xid xid8);
SELECT regress_polarx_add(1);
SELECT count(*) AS not_yet FROM regress_polarx_t;
COMMIT;
SELECT * FROM regress_polarx_t;

BEGIN;
SELECT regress_polarx_add(2);
ROLLBACK;
SELECT * FROM regress_polarx_t;

-- Savepoints.
BEGIN;
SELECT regress_polarx_add(3);
SAVEPOINT a;
SELECT regress_polarx_add(4);
SAVEPOINT b;
SELECT regress_polarx_add(5);
ROLLBACK TO a;
SELECT regress_polarx_add(6);
RELEASE a;
COMMIT;
SELECT * FROM regress_polarx_t ORDER BY i;

-- A savepoint from before the first remote statement.
BEGIN;
SAVEPOINT a;
SELECT regress_polarx_add(7);
ROLLBACK TO a;
SELECT regress_polarx_add(8);
COMMIT;
SELECT * FROM regress_polarx_t ORDER BY i;

-- An error that is caught rolls its part back; the transaction goes on.
DO $$
BEGIN
  PERFORM regress_polarx_add(9);
  BEGIN
    PERFORM regress_polarx_add(10);
    PERFORM pooler.exec('node1', 'SELECT 1 / 0');
  EXCEPTION WHEN division_by_zero THEN
    RAISE NOTICE 'caught: %', SQLERRM;
  END;
  PERFORM regress_polarx_add(11);
END $$;
SELECT * FROM regress_polarx_t ORDER BY i;

-- COMMIT inside a procedure.
DO $$
BEGIN
  PERFORM regress_polarx_add(12);
  COMMIT;
  PERFORM regress_polarx_add(13);
  ROLLBACK;
END $$;
SELECT * FROM regress_polarx_t WHERE i > 11;

-- The local isolation level and access mode.
BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE;
SELECT * FROM pooler.query('node1', $$
  SELECT current_setting('transaction_isolation'), current_setting('transaction_read_only'),
         current_setting('transaction_deferrable') $$)
  AS t(isolation text, read_only text, is_deferrable text);
SELECT regress_polarx_add(14);
\echo :SQLSTATE
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT * FROM pooler.query('node1', 'SHOW transaction_isolation') AS t(isolation text);
COMMIT;

-- A node that cannot commit: its error, and nothing is committed here.
CREATE TABLE regress_polarx_local (i int);
BEGIN;
INSERT INTO regress_polarx_local VALUES (1);
SELECT regress_polarx_add(1);
COMMIT;
\echo :SQLSTATE
SELECT count(*) FROM regress_polarx_local;
SELECT count(*) FROM regress_polarx_t WHERE i = 1;

-- Transaction control in the text.
BEGIN;
SELECT regress_polarx_add(15);
SELECT pooler.exec('node1', '/* really */ COMMIT');
\echo :SQLSTATE
SELECT 1;
ROLLBACK;
SELECT pooler.exec('node1', 'BEGIN');
SELECT pooler.exec('node1', 'savepoint s');
SELECT * FROM pooler.query('node1', 'ABORT') AS t(i int);
SELECT count(*) FROM regress_polarx_t WHERE i = 15;

-- Two-phase commit of the local transaction.
BEGIN;
SELECT regress_polarx_add(16);
PREPARE TRANSACTION 'regress_polarx';
\echo :SQLSTATE
SELECT count(*) FROM regress_polarx_t WHERE i = 16;

-- Outside the local transaction.
SELECT pooler.exec('node1', 'VACUUM regress_polarx_t');
\echo :SQLSTATE
SELECT pooler.exec_autocommit('node1', 'VACUUM regress_polarx_t');
BEGIN;
SELECT pooler.exec_autocommit('node1', 'INSERT INTO regress_polarx_t VALUES (17)');
ROLLBACK;
SELECT count(*) FROM regress_polarx_t WHERE i = 17;
BEGIN;
SELECT regress_polarx_add(18);
SELECT pooler.exec_autocommit('node1', 'VACUUM regress_polarx_t');
\echo :SQLSTATE
ROLLBACK;
SELECT pooler.exec_autocommit('node1', 'SELECT 1 / 0');
SELECT pooler.exec_autocommit('node1', 'BEGIN');
\echo :SQLSTATE
SELECT pooler.exec_autocommit('node1', 'SELECT 1; SELECT 2');
SELECT pooler.exec_autocommit('node1', 'COPY regress_polarx_t TO STDOUT');
SELECT pooler.exec_autocommit(NULL, 'SELECT 1');

SET client_min_messages = warning;
DROP FUNCTION regress_polarx_add;
DROP TABLE regress_polarx_t, regress_polarx_local;
DROP SERVER node1 CASCADE;
