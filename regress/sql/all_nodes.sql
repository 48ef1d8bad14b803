-- Statements on all nodes: two servers, both lead to this database; a setting tells them apart.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS polarx_pooler;
RESET client_min_messages;

-- No nodes: no rows.
SELECT * FROM pooler.query_all('SELECT 1') AS t(node name, i int);
SELECT * FROM pooler.exec_all('SELECT 1');
SELECT * FROM pooler.exec_all_autocommit('SELECT 1');

SELECT split_part(current_setting('unix_socket_directories'), ',', 1) AS dir,
       current_setting('port') AS port, current_database() AS db \gset
CREATE SERVER node2 FOREIGN DATA WRAPPER polarx_pooler
  OPTIONS (host :'dir', port :'port', dbname :'db', options '-c regress.me=2',
           min_pool_size '0', min_free_size '0');
CREATE SERVER node1 FOREIGN DATA WRAPPER polarx_pooler
  OPTIONS (host :'dir', port :'port', dbname :'db', options '-c regress.me=1',
           min_pool_size '0', min_free_size '0');
CREATE USER MAPPING FOR CURRENT_USER SERVER node1;
CREATE USER MAPPING FOR CURRENT_USER SERVER node2;

-- Rows come in the order of the nodes' names.
SELECT * FROM pooler.query_all('SELECT current_setting(''regress.me'')') AS t(node name, me int);
SELECT * FROM pooler.query_all('SELECT generate_series(1, $1::int)', '2') AS t(node text, i int);
SELECT node, count(*), sum(i)
FROM pooler.query_all('SELECT generate_series(1, 10000)') AS t(node name, i int)
GROUP BY node ORDER BY node;
SELECT count(DISTINCT pid)
FROM pooler.query_all('SELECT pg_backend_pid()') AS t(node name, pid int);

SELECT * FROM pooler.exec_all('SELECT 1');
SELECT pooler.exec('node1', 'CREATE TABLE regress_polarx_a (me int CHECK (me <> 3))');
SELECT * FROM pooler.exec_all(
  'INSERT INTO regress_polarx_a VALUES (current_setting(''regress.me'')::int + $1::int)', '0');
SELECT * FROM regress_polarx_a ORDER BY me;

-- One fails, all fail.
SELECT * FROM pooler.exec_all(
  'INSERT INTO regress_polarx_a VALUES (current_setting(''regress.me'')::int + $1::int)', '1');
\echo :SQLSTATE
SELECT * FROM pooler.query_all('SELECT 1 / (current_setting(''regress.me'')::int - 1)')
  AS t(node name, i int);
\echo :SQLSTATE
SELECT * FROM regress_polarx_a ORDER BY me;

-- One transaction on both nodes.
BEGIN;
SELECT * FROM pooler.exec_all('INSERT INTO regress_polarx_a VALUES (10)');
SAVEPOINT s;
SELECT * FROM pooler.exec_all('INSERT INTO regress_polarx_a VALUES (20)');
ROLLBACK TO s;
SELECT pooler.exec('node2', 'INSERT INTO regress_polarx_a VALUES (30)');
COMMIT;
SELECT * FROM regress_polarx_a ORDER BY me;
BEGIN;
SELECT * FROM pooler.exec_all('DELETE FROM regress_polarx_a WHERE me = current_setting(''regress.me'')::int');
ROLLBACK;
SELECT count(*) FROM regress_polarx_a;

-- Outside the transaction.
SELECT * FROM pooler.exec_all_autocommit('VACUUM regress_polarx_a');
BEGIN;
SELECT pooler.exec('node2', 'SELECT 1');
SELECT * FROM pooler.exec_all_autocommit('VACUUM regress_polarx_a');
\echo :SQLSTATE
ROLLBACK;
SELECT * FROM pooler.exec_all_autocommit('SELECT 1 / (current_setting(''regress.me'')::int - 1)');
\echo :SQLSTATE

-- The column list: the node's name first.
SELECT * FROM pooler.query_all('SELECT 1') AS t(node int, i int);
\echo :SQLSTATE
-- Which of several failing nodes is reported is not determined.
\set VERBOSITY sqlstate
SELECT * FROM pooler.query_all('SELECT 1') AS t(node name);
SELECT * FROM pooler.query_all('SELECT 1, 2') AS t(node name, i int);
SELECT * FROM pooler.exec_all('SELECT 1; SELECT 2');
\set VERBOSITY default

SELECT * FROM pooler.query_all(NULL) AS t(node name, i int);
\echo :SQLSTATE
SELECT * FROM pooler.exec_all(NULL);
SELECT * FROM pooler.exec_all('COMMIT');
SELECT * FROM pooler.query_all('COPY regress_polarx_a TO STDOUT') AS t(node name, i int);

SET client_min_messages = warning;
DROP TABLE regress_polarx_a;
DROP SERVER node1 CASCADE;
DROP SERVER node2 CASCADE;
