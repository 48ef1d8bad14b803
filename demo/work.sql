-- What demo/run.sh does first: run by psql on the coordinator as the role app.
\pset footer off
\timing on
\echo '\n-- One account, read on the datanode where it lives.'
SELECT * FROM pooler.query('dn2',
    'SELECT aid, bid, abalance FROM pgbench_accounts WHERE aid = $1', '700042')
  AS t(aid int, bid int, abalance int);

\echo '\n-- How many accounts, and how much money? All datanodes at once.'
SELECT * FROM pooler.query_all('SELECT count(*), sum(abalance) FROM pgbench_accounts')
  AS t(node name, accounts bigint, money bigint);

\echo '\n-- A transfer of 100 from an account on dn1 to one on dn2, in one transaction.'
BEGIN;
SELECT pooler.exec('dn1',
    'UPDATE pgbench_accounts SET abalance = abalance - $1 WHERE aid = $2', '100', '42');
SELECT pooler.exec('dn2',
    'UPDATE pgbench_accounts SET abalance = abalance + $1 WHERE aid = $2', '100', '700042');
COMMIT;

\echo '\n-- The money moved, and none was lost.'
SELECT node, money, sum(money) OVER () AS all_money
  FROM pooler.query_all('SELECT sum(abalance) FROM pgbench_accounts') AS t(node name, money bigint);

\echo '\n-- The same transfer again, and a change of mind.'
BEGIN;
SELECT pooler.exec('dn1',
    'UPDATE pgbench_accounts SET abalance = abalance - $1 WHERE aid = $2', '100', '42');
SELECT pooler.exec('dn2',
    'UPDATE pgbench_accounts SET abalance = abalance + $1 WHERE aid = $2', '100', '700042');
SELECT node, money, sum(money) OVER () AS all_money
  FROM pooler.query_all('SELECT sum(abalance) FROM pgbench_accounts') AS t(node name, money bigint);
ROLLBACK;

\echo '\n-- Nothing of it is left on either datanode.'
SELECT node, money, sum(money) OVER () AS all_money
  FROM pooler.query_all('SELECT sum(abalance) FROM pgbench_accounts') AS t(node name, money bigint);
