\echo Use "CREATE EXTENSION polarx_pooler_example" to load this file. \quit

-- Asks two nodes at the same time, on connections acquired in one request.
CREATE FUNCTION example_two_nodes(a name, b name)
RETURNS TABLE (node name, remote_pid int)
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME';

-- Doubles 1 .. n on the node, n queries in one pipeline; returns the sum.
CREATE FUNCTION example_pipeline(node name, n int) RETURNS bigint
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME';

-- Copies the numbers 1 .. n into a table of the node and reads them back; returns their sum.
CREATE FUNCTION example_copy(node name, table_name text, n int) RETURNS bigint
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME';

-- Starts a long statement, cancels it; returns the SQLSTATE it ended with.
CREATE FUNCTION example_cancel(node name) RETURNS text
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME';

-- Waits for a statement of that length, interruptibly.
CREATE FUNCTION example_sleep(node name, seconds float8) RETURNS void
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME';

-- Leaves the connection in a state (idle, transaction, failed, copy, pipeline, busy) and gives it
-- back as one of a kind (0 clean, 1 in transaction, 2 close) or not at all (3): the transaction's
-- end does it. Returns the process id of the connection at the node.
CREATE FUNCTION example_leave(node name, state text, kind int) RETURNS int
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME';

-- Sends bytes to the pooler's socket as one who does not know the protocol would. Then: hangup
-- (close at once), silence (keep the socket until this session ends), await (until the pooler closes it; the
-- answer is how many bytes came before).
CREATE FUNCTION example_hostile(socket text, data bytea, ending text) RETURNS int
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME';

-- The parameters that a datanode reports: as libpq knows them before and after a statement, and as
-- the datanode says. Without a statement nothing is sent at all ("really" is NULL then).
CREATE FUNCTION example_parameters(node name, sql text)
RETURNS TABLE (name text, before text, after text, really text)
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME';

-- Name, host and port of the node that a lease is of.
CREATE FUNCTION example_address(node name) RETURNS text
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME';

-- The data as libpq's PQescapeStringConn escapes them, after a statement ('': none).
CREATE FUNCTION example_escape(node name, data bytea, sql text) RETURNS bytea
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME';

-- Runs a statement; returns how many notifications libpq has then.
CREATE FUNCTION example_notifications(node name, sql text) RETURNS int
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME';

-- Runs a statement and gives the connection back as clean: done, in COPY (copy), with rows unread
-- (unread), in pipeline mode (pipeline). Returns the process id of the connection at the node.
CREATE FUNCTION example_leave_open(node name, ending text, sql text) RETURNS int
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME';

-- Attaches to the pooler's socket by hand, once more than this session does by itself, which it must
-- not have done yet. Then: bytes to the pooler, and one frame from it (NULL: it has hung up).
CREATE FUNCTION misuse_attach(socket text) RETURNS void
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME';
CREATE FUNCTION misuse_send(data bytea) RETURNS void
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME';
CREATE FUNCTION misuse_receive() RETURNS bytea
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME';

-- A child of this session sends bytes to a socket; how many bytes came back (-1: not connected).
CREATE FUNCTION misuse_forked(socket text, data bytea) RETURNS int
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME';

-- Acquires, releases and then calls that function of the C interface with the lease that is gone:
-- release, close, cancel, connection, node, host, port.
CREATE FUNCTION misuse_after_release(node name, call text) RETURNS text
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME';

-- Leaves a lease with half a row sent to COPY FROM STDIN; returns the remote process id.
CREATE FUNCTION misuse_copy_in(node name, table_name text) RETURNS int
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME';

-- What libpq knows about a lent connection.
CREATE FUNCTION misuse_conninfo(node name) RETURNS text
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME';

-- Runs a statement with so many bytes of memory left for it.
CREATE FUNCTION misuse_without_memory(spare int, sql text) RETURNS void
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME';

-- Records in <path>.sent and <path>.received what the pooler's library and the pooler worker send to
-- each other in this session, and in <path>.played the server's part of startups that it plays.
CREATE FUNCTION misuse_record(path text) RETURNS void
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME';

-- The next listener of an adoption in this session writes its name into a file and waits until
-- that file is gone.
CREATE FUNCTION misuse_stall_listen(path text) RETURNS void
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME';

-- Runs a statement and gives the lease back as one that may be parked: done, with rows unread
-- (unread), in pipeline mode (pipeline), with the PGconn changed (dressed). Returns the process id
-- of the connection at the node. Then: how many notices have come to a receiver left there.
CREATE FUNCTION parking_park(node name, sql text, ending text) RETURNS int
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME';
CREATE FUNCTION parking_notices() RETURNS int
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME';
