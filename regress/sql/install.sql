-- What CREATE EXTENSION makes, and the parameters that the preloaded library defines.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS polarx_pooler;
RESET client_min_messages;

SELECT extversion, extrelocatable FROM pg_extension WHERE extname = 'polarx_pooler';

SELECT pg_describe_object(classid, objid, 0) AS member
FROM pg_depend
WHERE deptype = 'e' AND refclassid = 'pg_extension'::regclass
  AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'polarx_pooler')
  AND classid <> 'pg_type'::regclass  -- with every view, from PostgreSQL 17 on
ORDER BY pg_describe_object(classid, objid, 0) COLLATE "C";

SELECT proname, pg_get_function_arguments(oid) AS arguments, pg_get_function_result(oid) AS result
FROM pg_proc
WHERE pronamespace = 'pooler'::regnamespace AND proname !~ '^_'
ORDER BY proname;

-- The library and the script are of one version.
SELECT pooler.version() = default_version AS current FROM pg_available_extensions
WHERE name = 'polarx_pooler';

-- Volatility, parallel safety, and who may execute.
SELECT proname, provolatile AS v, proparallel AS p,
       has_function_privilege('public', oid, 'EXECUTE') AS public,
       has_function_privilege('pg_monitor', oid, 'EXECUTE') AS pg_monitor
FROM pg_proc
WHERE pronamespace = 'pooler'::regnamespace
ORDER BY proname;

SELECT fdwname, fdwhandler = 0 AS no_handler, fdwvalidator::regproc AS validator, fdwacl
FROM pg_foreign_data_wrapper WHERE fdwname = 'polarx_pooler';

-- Everything has a comment.
SELECT pg_describe_object(classid, objid, 0) AS without_comment
FROM pg_depend
WHERE deptype = 'e' AND refclassid = 'pg_extension'::regclass
  AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'polarx_pooler')
  AND classid IN ('pg_proc'::regclass, 'pg_class'::regclass, 'pg_namespace'::regclass,
                  'pg_foreign_data_wrapper'::regclass)
  AND obj_description(objid, classid::regclass::name) IS NULL;

-- Parameters; boot_val is the default.
SELECT name, vartype, left(boot_val, 15) AS boot_val, unit, context, min_val AS min, max_val AS max
FROM pg_settings WHERE name LIKE 'pooler.%'
ORDER BY name COLLATE "C";

SELECT name FROM pg_settings
WHERE name LIKE 'pooler.%' AND (short_desc = '' OR short_desc IS NULL);

SET pooler.queue_timeout = '2s';
SHOW pooler.queue_timeout;
\set VERBOSITY sqlstate
SET pooler.queue_timeout = -1;
\set VERBOSITY default
SET pooler.max_pool_size = 10;
SET pooler.port = 7000;
SET pooler.max_pool_sise = 10;

-- Gone and back: nothing is left behind.
DROP EXTENSION polarx_pooler;
SELECT nspname FROM pg_namespace WHERE nspname = 'pooler';
CREATE SCHEMA pooler;
\set SHOW_CONTEXT never
CREATE EXTENSION polarx_pooler;
\unset SHOW_CONTEXT
DROP SCHEMA pooler;
CREATE EXTENSION polarx_pooler;
