-- query and exec on one node, which is this database itself.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS polarx_pooler;
RESET client_min_messages;
SELECT split_part(current_setting('unix_socket_directories'), ',', 1) AS dir,
       current_setting('port') AS port, current_database() AS db \gset
CREATE SERVER node1 FOREIGN DATA WRAPPER polarx_pooler
  OPTIONS (host :'dir', port :'port', dbname :'db', min_pool_size '0', min_free_size '0');
CREATE USER MAPPING FOR CURRENT_USER SERVER node1;

SELECT * FROM pooler.query('node1', 'SELECT 1, ''one''') AS t(i int, s text);
SELECT pid <> pg_backend_pid() AS elsewhere
FROM pooler.query('node1', 'SELECT pg_backend_pid()') AS t(pid int);
SELECT count(*), sum(i)
FROM pooler.query('node1', 'SELECT generate_series(1, 100000)') AS t(i int);
SELECT * FROM pooler.query('node1', 'SELECT 1 WHERE false') AS t(i int);

-- Parameters are texts; their types are those of the statement.
SELECT * FROM pooler.query('node1', 'SELECT $1::int + $2::int, $3', '40', '2', 'it''s')
  AS t(sum int, s text);
SELECT * FROM pooler.query('node1', 'SELECT $1::int IS NULL, $2', NULL, '') AS t(is_null bool, s text);
SELECT * FROM pooler.query('node1', 'SELECT $1 || $2', VARIADIC ARRAY['a', 'b']) AS t(s text);
SELECT * FROM pooler.query('node1', 'SELECT 1', VARIADIC NULL) AS t(i int);
SELECT * FROM pooler.query('node1', 'SELECT $1::int') AS t(i int);
SELECT * FROM pooler.query('node1', 'SELECT 1', 'too many') AS t(i int);

-- Values arrive exactly, whatever the local settings are.
SET DateStyle = 'German, DMY';
SET IntervalStyle = 'sql_standard';
SET extra_float_digits = 0;
SET bytea_output = 'escape';
SELECT d = '2026-02-03' AS d, ts = '2026-02-03 04:05:06.789+00' AS ts,
       iv = interval '-1 year 2 days -3 hours' AS iv, f = 0.1::float8 + 0.2::float8 AS f,
       n = 'NaN' AS n, b = '\x00ff5c' AS b, a = ARRAY['x,y', NULL, '"'] AS a,
       j = '{"k": [1, null]}' AS j, c = 'ä€😀' AS c, r = '[1,5)' AS r
FROM pooler.query('node1', $$
  SELECT date '2026-02-03', timestamptz '2026-02-03 04:05:06.789+00',
         interval '-1 year 2 days -3 hours', 0.1::float8 + 0.2::float8, 'NaN'::numeric,
         '\x00ff5c'::bytea, ARRAY['x,y', NULL, '"'], '{"k": [1, null]}'::jsonb, 'ä€😀',
         int4range(1, 5) $$)
  AS t(d date, ts timestamptz, iv interval, f float8, n numeric, b bytea, a text[], j jsonb,
       c text, r int4range);
RESET DateStyle;
RESET IntervalStyle;
RESET extra_float_digits;
RESET bytea_output;

-- The column list must fit.
SELECT * FROM pooler.query('node1', 'SELECT 1, 2') AS t(i int);
\echo :SQLSTATE
SELECT * FROM pooler.query('node1', 'SELECT 1') AS t(i int, j int);
SELECT * FROM pooler.query('node1', 'SELECT 1 UNION ALL SELECT NULL UNION ALL SELECT 3')
  AS t(i int);
SELECT * FROM pooler.query('node1', 'SELECT ''twelve''') AS t(i int);
\echo :SQLSTATE
SELECT * FROM pooler.query('node1', 'SELECT 1');

-- exec gives the command tag.
SELECT pooler.exec('node1', 'CREATE TABLE regress_polarx_q (i int PRIMARY KEY, s text NOT NULL)');
SELECT pooler.exec('node1', 'INSERT INTO regress_polarx_q VALUES ($1::int, $2), (2, $3)', '1', 'a', 'b');
SELECT pooler.exec('node1', 'UPDATE regress_polarx_q SET s = s || s');
SELECT pooler.exec('node1', 'SELECT * FROM regress_polarx_q');
SELECT * FROM pooler.query('node1', 'DELETE FROM regress_polarx_q WHERE i = 2 RETURNING *')
  AS t(i int, s text);
SELECT * FROM regress_polarx_q;
SELECT * FROM pooler.query('node1', 'DELETE FROM regress_polarx_q') AS t(i int);
\echo :SQLSTATE
SELECT * FROM regress_polarx_q;

-- An error of the node: its SQLSTATE, message, detail and hint.
SELECT pooler.exec('node1', 'INSERT INTO regress_polarx_q VALUES (1, ''c'')');
\echo :SQLSTATE
SELECT pooler.exec('node1', 'INSERT INTO regress_polarx_q VALUES (3, $1)', NULL);
SELECT pooler.exec('node1', 'SELEC 1');
SELECT * FROM pooler.query('node1', 'SELECT 10 / (5 - i) FROM generate_series(1, 9) i') AS t(i int);
\echo :SQLSTATE
SELECT * FROM pooler.query('node1', 'SELECT 1') AS t(i int);

-- Refused here.
SELECT pooler.exec(NULL, 'SELECT 1');
\echo :SQLSTATE
SELECT pooler.exec('node1', NULL);
SELECT * FROM pooler.query(NULL, 'SELECT 1') AS t(i int);
SELECT pooler.exec('nowhere', 'SELECT 1');
\echo :SQLSTATE
SELECT pooler.exec('node1', 'SELECT 1; SELECT 2');
\echo :SQLSTATE
SELECT pooler.exec('node1', 'COPY regress_polarx_q TO STDOUT');
\echo :SQLSTATE
SELECT pooler.exec('node1', '');

SET client_min_messages = warning;
DROP TABLE regress_polarx_q;
DROP SERVER node1 CASCADE;
