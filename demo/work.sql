\timing on
\pset footer off

-- One account, read on the datanode where it lives.
SELECT * FROM pooler.query('dn2',
    'SELECT aid, bid, abalance FROM pgbench_accounts WHERE aid = $1', '700042')
  AS t(aid int, bid int, abalance int);

-- How many accounts, and how much money? All datanodes at once.
SELECT * FROM pooler.query_all('SELECT count(*), sum(abalance) FROM pgbench_accounts')
  AS t(node name, accounts bigint, money bigint);

-- A transfer of 100 from an account on dn1 to one on dn2, in one transaction.
BEGIN;
SELECT pooler.exec('dn1',
    'UPDATE pgbench_accounts SET abalance = abalance - $1 WHERE aid = $2', '100', '42');
SELECT pooler.exec('dn2',
    'UPDATE pgbench_accounts SET abalance = abalance + $1 WHERE aid = $2', '100', '700042');
COMMIT;

-- The money moved, and none was lost.
SELECT node, money, sum(money) OVER () AS all_money
  FROM pooler.query_all('SELECT sum(abalance) FROM pgbench_accounts') AS t(node name, money bigint);

-- The same transfer again, and a change of mind.
BEGIN;
SELECT pooler.exec('dn1',
    'UPDATE pgbench_accounts SET abalance = abalance - $1 WHERE aid = $2', '100', '42');
SELECT pooler.exec('dn2',
    'UPDATE pgbench_accounts SET abalance = abalance + $1 WHERE aid = $2', '100', '700042');
SELECT node, money, sum(money) OVER () AS all_money
  FROM pooler.query_all('SELECT sum(abalance) FROM pgbench_accounts') AS t(node name, money bigint);
ROLLBACK;

-- Nothing of it is left on either datanode.
SELECT node, money, sum(money) OVER () AS all_money
  FROM pooler.query_all('SELECT sum(abalance) FROM pgbench_accounts') AS t(node name, money bigint);
