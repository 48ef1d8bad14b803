-- Options of servers and user mappings: what is accepted, and what the refusals say.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS polarx_pooler;
RESET client_min_messages;

CREATE SERVER good FOREIGN DATA WRAPPER polarx_pooler
  OPTIONS (host 'localhost', port '5432', dbname 'd', connect_timeout '3', keepalives_idle '7',
           options '-c work_mem=8MB', application_name 'a', sslmode 'prefer',
           max_pool_size '10', min_pool_size '0', min_free_size '0');
ALTER SERVER good OPTIONS (SET max_pool_size '65535', DROP min_free_size);
CREATE SERVER empty FOREIGN DATA WRAPPER polarx_pooler;

-- Near misses get a hint.
ALTER SERVER good OPTIONS (ADD hots 'localhost');
\echo :SQLSTATE
ALTER SERVER good OPTIONS (ADD max_pool_sise '3');
-- Otherwise the hint lists libpq's options, which are not the same in every version.
\set VERBOSITY terse
ALTER SERVER good OPTIONS (ADD "HOST" 'localhost');

-- What the pooler or libpq keeps for itself.
ALTER SERVER good OPTIONS (ADD replication 'true');
ALTER SERVER good OPTIONS (ADD client_encoding 'latin1');
ALTER SERVER good OPTIONS (ADD fallback_application_name 'x');
ALTER SERVER good OPTIONS (ADD service 'x');
\set VERBOSITY default

-- What belongs into mappings, and what into servers.
ALTER SERVER good OPTIONS (ADD user 'x');
ALTER SERVER good OPTIONS (ADD password 'x');
ALTER SERVER good OPTIONS (ADD password_required 'false');
CREATE USER MAPPING FOR CURRENT_USER SERVER good OPTIONS (host 'x');
\echo :SQLSTATE
CREATE USER MAPPING FOR CURRENT_USER SERVER good OPTIONS (max_pool_size '3');
CREATE USER MAPPING FOR CURRENT_USER SERVER good OPTIONS (user 'u', passwort 'p');

-- Values.
ALTER SERVER good OPTIONS (SET host 'a,b');
\echo :SQLSTATE
ALTER SERVER good OPTIONS (SET max_pool_size '0');
\echo :SQLSTATE
ALTER SERVER good OPTIONS (SET max_pool_size '65536');
ALTER SERVER good OPTIONS (SET max_pool_size 'many');
ALTER SERVER good OPTIONS (SET min_pool_size '-1');
ALTER SERVER good OPTIONS (SET port '0');
ALTER SERVER good OPTIONS (SET port '70000');
CREATE USER MAPPING FOR CURRENT_USER SERVER good OPTIONS (user 'u', password_required 'perhaps');

-- A TLS session cannot be lent.
ALTER SERVER good OPTIONS (SET sslmode 'disable');
ALTER SERVER good OPTIONS (SET sslmode 'require');
ALTER SERVER good OPTIONS (SET sslmode 'verify-full');
ALTER SERVER good OPTIONS (SET sslmode 'sometimes');

-- A role that may make mappings may not lift the password rule, nor read the server's files.
CREATE ROLE regress_polarx_user;
GRANT USAGE ON FOREIGN SERVER good TO regress_polarx_user;
SET ROLE regress_polarx_user;
CREATE USER MAPPING FOR regress_polarx_user SERVER good
  OPTIONS (user 'u', password 'p', password_required 'false');
\echo :SQLSTATE
CREATE USER MAPPING FOR regress_polarx_user SERVER good
  OPTIONS (user 'u', password 'p', sslkey '/tmp/k');
\echo :SQLSTATE
CREATE USER MAPPING FOR regress_polarx_user SERVER good OPTIONS (user 'u', password 'p');
ALTER USER MAPPING FOR regress_polarx_user SERVER good OPTIONS (ADD password_required 'true');
ALTER USER MAPPING FOR regress_polarx_user SERVER good OPTIONS (SET password_required 'false');
RESET ROLE;
ALTER USER MAPPING FOR regress_polarx_user SERVER good OPTIONS (SET password_required 'false');

-- The wrapper has no options and no tables.
ALTER FOREIGN DATA WRAPPER polarx_pooler OPTIONS (ADD host 'x');
CREATE FOREIGN TABLE ft (i int) SERVER good OPTIONS (table_name 't');
CREATE FOREIGN TABLE ft (i int) SERVER good;
SELECT * FROM ft;

SET client_min_messages = warning;
DROP FOREIGN TABLE ft;
DROP SERVER good CASCADE;
DROP SERVER empty;
DROP ROLE regress_polarx_user;
