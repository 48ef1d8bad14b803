/*
 * How another extension borrows datanode connections: two nodes at once, a pipeline, COPY, cancel.
 * Everything happens in a backend, on its only thread.
 *
 * No PG_TRY is needed: a lease that an error leaves behind is released at the end of the
 * (sub)transaction. A PGresult is libpq's memory: it is cleared before an error is raised.
 */
#include "postgres.h"

#include "extension/polarx_pooler/polarx_pooler.h"
#include "fmgr.h"
#include "funcapi.h"
#include "libpq-fe.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(example_two_nodes);
PG_FUNCTION_INFO_V1(example_pipeline);
PG_FUNCTION_INFO_V1(example_copy);
PG_FUNCTION_INFO_V1(example_cancel);
PG_FUNCTION_INFO_V1(example_sleep);
PG_FUNCTION_INFO_V1(example_leave);

void		_PG_init(void);

static PolarxPoolerFunctions pooler;

void
_PG_init(void)
{
	PolarxPoolerLoad(&pooler);
}

/* The lease of one node. */
static PolarxLease *
acquire(Name node)
{
	const char *names[1] = {NameStr(*node)};
	PolarxLease *lease;

	pooler.acquire(names, 1, &lease);
	return lease;
}

/* Raises libpq's message for a connection that did not take what it was sent. */
static void
connection_error(PGconn *conn)
{
	ereport(ERROR,
			(errcode(ERRCODE_CONNECTION_FAILURE),
			 errmsg("%s", pchomp(PQerrorMessage(conn)))));
}

/* Waits, interruptibly, until the socket is readable (or writable, if asked). */
static void
wait_for_socket(PGconn *conn, int events)
{
	(void) WaitLatchOrSocket(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | events,
							 PQsocket(conn), -1, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/* The next result; NULL where libpq says NULL. */
static PGresult *
next_result(PGconn *conn)
{
	while (PQflush(conn) > 0 || PQisBusy(conn))
	{
		wait_for_socket(conn, WL_SOCKET_READABLE);
		if (!PQconsumeInput(conn))
			connection_error(conn);
	}
	return PQgetResult(conn);
}

/* Raises the error of a result that is not of the expected status; clears the result then. */
static void
expect(PGconn *conn, PGresult *result, ExecStatusType status)
{
	char	   *message;
	const char *sqlstate;
	char		code[6] = "XX000";

	if (PQresultStatus(result) == status)
		return;
	sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	if (sqlstate != NULL)
		strlcpy(code, sqlstate, sizeof(code));
	message = pchomp(PQresultErrorMessage(result));
	PQclear(result);
	ereport(ERROR,
			(errcode(MAKE_SQLSTATE(code[0], code[1], code[2], code[3], code[4])),
			 errmsg("%s", message[0] != '\0' ? message : "unexpected answer of the datanode")));
}

/* Reads up to the NULL that ends a statement outside a pipeline. */
static void
finish_statement(PGconn *conn)
{
	PGresult   *result;

	while ((result = next_result(conn)) != NULL)
		PQclear(result);
}

/* Runs one statement whose result must be of that status. */
static void
run(PGconn *conn, const char *sql, ExecStatusType status)
{
	PGresult   *result;

	if (!PQsendQuery(conn, sql))
		connection_error(conn);
	result = next_result(conn);
	expect(conn, result, status);
	PQclear(result);
	if (status != PGRES_COPY_IN && status != PGRES_COPY_OUT)
		finish_statement(conn);
}

Datum
example_two_nodes(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *info = (ReturnSetInfo *) fcinfo->resultinfo;
	const char *nodes[2] = {NameStr(*PG_GETARG_NAME(0)), NameStr(*PG_GETARG_NAME(1))};
	PolarxLease *leases[2];
	PGconn	   *conns[2];

	InitMaterializedSRF(fcinfo, 0);
	pooler.acquire(nodes, 2, leases);
	for (int i = 0; i < 2; i++)
	{
		conns[i] = pooler.connection(leases[i]);
		if (!PQsendQuery(conns[i], "SELECT pg_backend_pid()"))
			connection_error(conns[i]);
	}
	for (int i = 0; i < 2; i++)
	{
		Datum		values[2];
		bool		nulls[2] = {false, false};
		NameData	name;
		PGresult   *result = next_result(conns[i]);

		expect(conns[i], result, PGRES_TUPLES_OK);
		namestrcpy(&name, pooler.node(leases[i]));
		values[0] = NameGetDatum(&name);
		values[1] = Int32GetDatum(atoi(PQgetvalue(result, 0, 0)));
		PQclear(result);
		tuplestore_putvalues(info->setResult, info->setDesc, values, nulls);
		finish_statement(conns[i]);
		pooler.release(leases[i], POLARX_RELEASE_CLEAN);
	}
	return (Datum) 0;
}

/* Sends query number i of the pipeline. */
static void
send_double(PGconn *conn, int i)
{
	char		number[12];
	const char *values[1] = {number};

	snprintf(number, sizeof(number), "%d", i);
	if (!PQsendQueryParams(conn, "SELECT $1::bigint * 2", 1, NULL, values, NULL, NULL, 0))
		connection_error(conn);
}

Datum
example_pipeline(PG_FUNCTION_ARGS)
{
	PolarxLease *lease = acquire(PG_GETARG_NAME(0));
	PGconn	   *conn = pooler.connection(lease);
	int			n = PG_GETARG_INT32(1);
	int64		sum = 0;
	PGresult   *result;

	if (!PQenterPipelineMode(conn))
		connection_error(conn);
	for (int i = 1; i <= n; i++)
		send_double(conn, i);
	if (!PQpipelineSync(conn))
		connection_error(conn);
	for (int i = 1; i <= n; i++)
	{
		result = next_result(conn);
		expect(conn, result, PGRES_TUPLES_OK);
		sum += strtoll(PQgetvalue(result, 0, 0), NULL, 10);
		PQclear(result);
		finish_statement(conn);
	}
	result = next_result(conn);
	expect(conn, result, PGRES_PIPELINE_SYNC);
	PQclear(result);
	if (!PQexitPipelineMode(conn))
		connection_error(conn);
	pooler.release(lease, POLARX_RELEASE_CLEAN);
	PG_RETURN_INT64(sum);
}

/* COPY … FROM STDIN of the numbers 1 .. n. */
static void
copy_in(PGconn *conn, const char *table, int n)
{
	PGresult   *result;

	run(conn, psprintf("COPY %s FROM STDIN", quote_identifier(table)), PGRES_COPY_IN);
	for (int i = 1; i <= n; i++)
	{
		char		line[16];
		int			length = snprintf(line, sizeof(line), "%d\n", i);

		if (PQputCopyData(conn, line, length) != 1)
			connection_error(conn);
	}
	if (PQputCopyEnd(conn, NULL) != 1)
		connection_error(conn);
	result = next_result(conn);
	expect(conn, result, PGRES_COMMAND_OK);
	PQclear(result);
	finish_statement(conn);
}

/* Sum of the numbers that COPY … TO STDOUT sends. */
static int64
copy_out(PGconn *conn, const char *table)
{
	int64		sum = 0;
	char	   *line;
	int			length;

	run(conn, psprintf("COPY %s TO STDOUT", quote_identifier(table)), PGRES_COPY_OUT);
	while ((length = PQgetCopyData(conn, &line, true)) >= 0)
	{
		if (length > 0)
		{
			sum += strtoll(line, NULL, 10);
			PQfreemem(line);
			continue;
		}
		wait_for_socket(conn, WL_SOCKET_READABLE);
		if (!PQconsumeInput(conn))
			connection_error(conn);
	}
	if (length == -2)
		connection_error(conn);
	finish_statement(conn);
	return sum;
}

Datum
example_copy(PG_FUNCTION_ARGS)
{
	PolarxLease *lease = acquire(PG_GETARG_NAME(0));
	PGconn	   *conn = pooler.connection(lease);
	char	   *table = text_to_cstring(PG_GETARG_TEXT_PP(1));
	int64		sum;

	copy_in(conn, table, PG_GETARG_INT32(2));
	sum = copy_out(conn, table);
	pooler.release(lease, POLARX_RELEASE_CLEAN);
	PG_RETURN_INT64(sum);
}

/* Set by the notice that the long statement raises first. Not a local: an error would leave it. */
static bool statement_runs;

static void
note_start(void *arg, const PGresult *notice)
{
	statement_runs = true;
}

Datum
example_cancel(PG_FUNCTION_ARGS)
{
	PolarxLease *lease = acquire(PG_GETARG_NAME(0));
	PGconn	   *conn = pooler.connection(lease);
	const char *sqlstate;
	text	   *answer;
	PGresult   *result;

	/* A cancel that comes before its statement is lost, so the statement says when it runs. */
	statement_runs = false;
	PQsetNoticeReceiver(conn, note_start, NULL);
	if (!PQsendQuery(conn, "DO $$BEGIN RAISE NOTICE 'go'; PERFORM pg_sleep(60); END$$"))
		connection_error(conn);
	while (PQisBusy(conn) && !statement_runs)
	{
		wait_for_socket(conn, WL_SOCKET_READABLE);
		if (!PQconsumeInput(conn))
			connection_error(conn);
	}
	pooler.cancel(lease);
	result = next_result(conn);
	sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	answer = cstring_to_text(sqlstate != NULL ? sqlstate : PQresStatus(PQresultStatus(result)));
	PQclear(result);
	finish_statement(conn);
	pooler.release(lease, POLARX_RELEASE_CLEAN);
	PG_RETURN_TEXT_P(answer);
}

Datum
example_sleep(PG_FUNCTION_ARGS)
{
	PolarxLease *lease = acquire(PG_GETARG_NAME(0));

	run(pooler.connection(lease), psprintf("SELECT pg_sleep(%g)", PG_GETARG_FLOAT8(1)),
		PGRES_TUPLES_OK);
	pooler.release(lease, POLARX_RELEASE_CLEAN);
	PG_RETURN_VOID();
}

/* Brings the connection into the named state. */
static void
bring_into(PGconn *conn, const char *state)
{
	if (strcmp(state, "idle") == 0)
		return;
	if (strcmp(state, "transaction") == 0)
		run(conn, "BEGIN; SET LOCAL work_mem = '7MB'; CREATE TABLE left_behind ()",
			PGRES_COMMAND_OK);
	else if (strcmp(state, "failed") == 0)
	{
		run(conn, "BEGIN", PGRES_COMMAND_OK);
		run(conn, "SELECT 1/0", PGRES_FATAL_ERROR);
	}
	else if (strcmp(state, "copy") == 0)
		run(conn, "COPY (SELECT g FROM generate_series(1, 100000) g) TO STDOUT", PGRES_COPY_OUT);
	else if (strcmp(state, "pipeline") == 0)
	{
		if (!PQenterPipelineMode(conn))
			connection_error(conn);
		send_double(conn, 1);
	}
	else if (strcmp(state, "busy") == 0)
	{
		if (!PQsendQuery(conn, "SELECT pg_sleep(60)"))
			connection_error(conn);
	}
	else
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown state \"%s\"", state)));
}

Datum
example_leave(PG_FUNCTION_ARGS)
{
	PolarxLease *lease = acquire(PG_GETARG_NAME(0));
	PGconn	   *conn = pooler.connection(lease);
	int			kind = PG_GETARG_INT32(2);
	int			pid = PQbackendPID(conn);

	bring_into(conn, text_to_cstring(PG_GETARG_TEXT_PP(1)));
	if (kind <= POLARX_RELEASE_CLOSE)
		pooler.release(lease, (PolarxReleaseKind) kind);
	PG_RETURN_INT32(pid);
}
