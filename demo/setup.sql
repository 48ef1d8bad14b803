-- The coordinator: the datanodes dn1 and dn2, once for the pool and once for postgres_fdw, and the
-- role app that may use them. psql variables: port1, port2.
CREATE EXTENSION polarx_pooler;
CREATE SERVER dn1 FOREIGN DATA WRAPPER polarx_pooler
  OPTIONS (host '127.0.0.1', port :'port1', dbname 'bank');
CREATE SERVER dn2 FOREIGN DATA WRAPPER polarx_pooler
  OPTIONS (host '127.0.0.1', port :'port2', dbname 'bank');
CREATE USER MAPPING FOR app SERVER dn1 OPTIONS (user 'app', password 'secret');
CREATE USER MAPPING FOR app SERVER dn2 OPTIONS (user 'app', password 'secret');
GRANT USAGE ON FOREIGN SERVER dn1, dn2 TO app;

CREATE EXTENSION postgres_fdw;
CREATE SERVER fdw1 FOREIGN DATA WRAPPER postgres_fdw
  OPTIONS (host '127.0.0.1', port :'port1', dbname 'bank');
CREATE SERVER fdw2 FOREIGN DATA WRAPPER postgres_fdw
  OPTIONS (host '127.0.0.1', port :'port2', dbname 'bank');
CREATE USER MAPPING FOR app SERVER fdw1 OPTIONS (user 'app', password 'secret');
CREATE USER MAPPING FOR app SERVER fdw2 OPTIONS (user 'app', password 'secret');
CREATE FOREIGN TABLE accounts1 (aid int, bid int, abalance int)
  SERVER fdw1 OPTIONS (table_name 'pgbench_accounts');
CREATE FOREIGN TABLE accounts2 (aid int, bid int, abalance int)
  SERVER fdw2 OPTIONS (table_name 'pgbench_accounts');
GRANT SELECT ON accounts1, accounts2 TO app;
