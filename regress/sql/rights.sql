-- Who may use a node, and as whom. The node is this database itself.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS polarx_pooler;
RESET client_min_messages;
SELECT split_part(current_setting('unix_socket_directories'), ',', 1) AS dir,
       current_setting('port') AS port, current_database() AS db \gset
CREATE SERVER node1 FOREIGN DATA WRAPPER polarx_pooler
  OPTIONS (host :'dir', port :'port', dbname :'db', min_pool_size '0', min_free_size '0');
CREATE USER MAPPING FOR CURRENT_USER SERVER node1;
CREATE ROLE regress_polarx_a LOGIN;
CREATE ROLE regress_polarx_b LOGIN;
CREATE FUNCTION regress_polarx_whoami() RETURNS name LANGUAGE sql BEGIN ATOMIC
  SELECT me FROM pooler.query('node1', 'SELECT current_user') AS t(me name); END;
CREATE FUNCTION regress_polarx_whoami_definer() RETURNS name LANGUAGE sql SECURITY DEFINER
BEGIN ATOMIC
  SELECT me FROM pooler.query('node1', 'SELECT current_user') AS t(me name); END;
ALTER FUNCTION regress_polarx_whoami_definer() OWNER TO regress_polarx_b;

-- USAGE on the server.
SET ROLE regress_polarx_a;
SELECT pooler.exec('node1', 'SELECT 1');
\echo :SQLSTATE
SELECT * FROM pooler.exec_all('SELECT 1');
RESET ROLE;
GRANT USAGE ON FOREIGN SERVER node1 TO regress_polarx_a, regress_polarx_b;

-- A mapping.
SET ROLE regress_polarx_a;
SELECT pooler.exec('node1', 'SELECT 1');
\echo :SQLSTATE
RESET ROLE;

-- A password that the node asked for; it does not ask here. A superuser's connection is no way in.
SELECT regress_polarx_whoami() = current_user AS superuser;
CREATE USER MAPPING FOR regress_polarx_a SERVER node1 OPTIONS (user :'USER');
SET ROLE regress_polarx_a;
SELECT pooler.exec('node1', 'SELECT 1');
\echo :SQLSTATE
ALTER USER MAPPING FOR regress_polarx_a SERVER node1 OPTIONS (ADD password 'secret');
SELECT pooler.exec('node1', 'SELECT 1');
\echo :SQLSTATE
ALTER USER MAPPING FOR regress_polarx_a SERVER node1 OPTIONS (SET password '');
SELECT pooler.exec('node1', 'SELECT 1');
\echo :SQLSTATE

-- A superuser can lift that rule for a mapping.
RESET ROLE;
ALTER USER MAPPING FOR regress_polarx_a SERVER node1
  OPTIONS (DROP user, DROP password, ADD password_required 'false');
CREATE USER MAPPING FOR regress_polarx_b SERVER node1 OPTIONS (password_required 'false');
SET ROLE regress_polarx_a;
SELECT regress_polarx_whoami();

-- Each role in a session has its own connection.
BEGIN;
SELECT regress_polarx_whoami(), regress_polarx_whoami_definer();
RESET ROLE;
SELECT regress_polarx_whoami() = current_user AS superuser, regress_polarx_whoami_definer();
SET LOCAL ROLE regress_polarx_b;
SELECT regress_polarx_whoami();
COMMIT;

-- A mapping of PUBLIC is for who has none.
DROP USER MAPPING FOR regress_polarx_a SERVER node1;
CREATE USER MAPPING FOR PUBLIC SERVER node1
  OPTIONS (user 'regress_polarx_b', password_required 'false');
SET ROLE regress_polarx_a;
SELECT regress_polarx_whoami();
RESET ROLE;

-- USAGE is asked at every call.
REVOKE USAGE ON FOREIGN SERVER node1 FROM regress_polarx_a;
SET ROLE regress_polarx_a;
SELECT regress_polarx_whoami();
\echo :SQLSTATE

-- Operation is for superusers, the views for pg_monitor; session_memory() is for everyone.
SELECT pooler.start();
SELECT pooler.stop();
SELECT pooler.reload();
SELECT pooler.clean();
SELECT pooler.check();
SELECT pooler.pause();
SELECT pooler.resume();
SELECT pooler.terminate();
SELECT pooler.reset_stats();
SELECT * FROM pooler.ping();
\echo :SQLSTATE
SELECT * FROM pooler.pools;
SELECT * FROM pooler._show_pools();
SELECT pooler.session_memory() > 100000 AS some;
RESET ROLE;
GRANT pg_monitor TO regress_polarx_a;
SET ROLE regress_polarx_a;
SELECT count(*) >= 1 AS some FROM pooler.workers;
SELECT count(*) FROM pooler.nodes WHERE node = 'node1';
SELECT count(*) >= 1 AS some FROM pooler.pools;
SELECT count(*) >= 0 AS some FROM pooler.connections;
SELECT count(*) FROM pooler.sessions WHERE pid = pg_backend_pid();
SELECT count(*) FROM pooler.stats;
SELECT pooler.clean();
SELECT pooler.reset_stats();
RESET ROLE;
REVOKE pg_monitor FROM regress_polarx_a;

-- Each function can be granted.
GRANT EXECUTE ON FUNCTION pooler.check, pooler.terminate TO regress_polarx_a;
SET ROLE regress_polarx_a;
SELECT pooler.check();
SELECT pooler.terminate();
SELECT pooler.pause();
RESET ROLE;
REVOKE EXECUTE ON FUNCTION pooler.check, pooler.terminate FROM regress_polarx_a;

SET client_min_messages = warning;
DROP FUNCTION regress_polarx_whoami, regress_polarx_whoami_definer;
DROP SERVER node1 CASCADE;
DROP ROLE regress_polarx_a, regress_polarx_b;
