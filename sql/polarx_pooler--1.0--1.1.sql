\echo Use "ALTER EXTENSION polarx_pooler UPDATE TO '1.1'" to load this file. \quit

CREATE FUNCTION pooler.version() RETURNS text
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'polarx_version';
COMMENT ON FUNCTION pooler.version()
IS 'version of the library that is loaded';
