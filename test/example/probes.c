/*
 * What a borrower finds on a connection and what it may leave there: parameters as libpq knows,
 * escaping, notifications, COPY, unread rows, pipeline mode. In a backend, on its only thread.
 *
 * Statements are awaited by blocking calls of libpq: the tests send short ones only.
 */
#include "postgres.h"

#include "extension/polarx_pooler/polarx_pooler.h"
#include "fmgr.h"
#include "funcapi.h"
#include "libpq-fe.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(example_parameters);
PG_FUNCTION_INFO_V1(example_address);
PG_FUNCTION_INFO_V1(example_escape);
PG_FUNCTION_INFO_V1(example_notifications);
PG_FUNCTION_INFO_V1(example_leave_open);

/* The names that a datanode reports and a test may change. */
static const char *const reported[] = {
	"TimeZone", "client_encoding", "standard_conforming_strings", "DateStyle", "IntervalStyle",
	"application_name", "session_authorization", "is_superuser", "default_transaction_read_only",
	"in_hot_standby", "server_encoding", "server_version"
};

static PolarxPoolerFunctions pooler;

static PolarxLease *
acquire(Name node)
{
	const char *names[1] = {NameStr(*node)};
	PolarxLease *lease;

	PolarxPoolerLoad(&pooler);
	pooler.acquire(names, 1, &lease);
	return lease;
}

/* Runs a statement; raises its error. The result is to be cleared. */
static PGresult *
run(PGconn *conn, const char *sql)
{
	PGresult   *result = PQexec(conn, sql);
	char	   *message;

	switch (PQresultStatus(result))
	{
		case PGRES_TUPLES_OK:
		case PGRES_COMMAND_OK:
		case PGRES_COPY_IN:
		case PGRES_COPY_OUT:
			return result;
		default:
			message = pchomp(PQresultErrorMessage(result));
			PQclear(result);
			ereport(ERROR, (errcode(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
							errmsg("%s: %s", sql, message)));
	}
}

Datum
example_address(PG_FUNCTION_ARGS)
{
	PolarxLease *lease = acquire(PG_GETARG_NAME(0));
	char	   *address = psprintf("%s %s %d", pooler.node(lease), pooler.host(lease),
								   pooler.port(lease));

	pooler.release(lease, POLARX_RELEASE_CLEAN);
	PG_RETURN_TEXT_P(cstring_to_text(address));
}

static text *
text_or_null(const char *value)
{
	return value == NULL ? NULL : cstring_to_text(value);
}

/* What the datanode says the parameter is. */
static text *
ask_setting(PGconn *conn, const char *name)
{
	PGresult   *result = run(conn, psprintf("SELECT current_setting('%s')", name));
	text	   *value = cstring_to_text(PQgetvalue(result, 0, 0));

	PQclear(result);
	return value;
}

Datum
example_parameters(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *info = (ReturnSetInfo *) fcinfo->resultinfo;
	PolarxLease *lease = acquire(PG_GETARG_NAME(0));
	PGconn	   *conn = pooler.connection(lease);
	text	   *found[lengthof(reported)];

	InitMaterializedSRF(fcinfo, 0);
	for (size_t i = 0; i < lengthof(reported); i++)
		found[i] = text_or_null(PQparameterStatus(conn, reported[i]));
	if (!PG_ARGISNULL(1))
		PQclear(run(conn, text_to_cstring(PG_GETARG_TEXT_PP(1))));
	for (size_t i = 0; i < lengthof(reported); i++)
	{
		text	   *told = text_or_null(PQparameterStatus(conn, reported[i]));
		Datum		values[4] = {CStringGetTextDatum(reported[i]), PointerGetDatum(found[i]),
			PointerGetDatum(told), (Datum) 0};
		bool		nulls[4] = {false, found[i] == NULL, told == NULL, PG_ARGISNULL(1)};

		/* Without a statement nothing is asked either: the connection goes back untouched. */
		if (!nulls[3])
			values[3] = PointerGetDatum(ask_setting(conn, reported[i]));
		tuplestore_putvalues(info->setResult, info->setDesc, values, nulls);
	}
	pooler.release(lease, POLARX_RELEASE_CLEAN);
	return (Datum) 0;
}

Datum
example_escape(PG_FUNCTION_ARGS)
{
	PolarxLease *lease = acquire(PG_GETARG_NAME(0));
	PGconn	   *conn = pooler.connection(lease);
	bytea	   *data = PG_GETARG_BYTEA_PP(1);
	size_t		length = VARSIZE_ANY_EXHDR(data);
	char	   *setup = text_to_cstring(PG_GETARG_TEXT_PP(2));
	bytea	   *escaped = palloc(VARHDRSZ + 2 * length + 1);
	size_t		size;

	if (setup[0] != '\0')
		PQclear(run(conn, setup));
	size = PQescapeStringConn(conn, VARDATA(escaped), VARDATA_ANY(data), length, NULL);
	SET_VARSIZE(escaped, VARHDRSZ + size);
	pooler.release(lease, POLARX_RELEASE_CLEAN);
	PG_RETURN_BYTEA_P(escaped);
}

Datum
example_notifications(PG_FUNCTION_ARGS)
{
	PolarxLease *lease = acquire(PG_GETARG_NAME(0));
	PGconn	   *conn = pooler.connection(lease);
	PGnotify   *notify;
	int			count = 0;

	PQclear(run(conn, text_to_cstring(PG_GETARG_TEXT_PP(1))));
	while ((notify = PQnotifies(conn)) != NULL)
	{
		PQfreemem(notify);
		count++;
	}
	pooler.release(lease, POLARX_RELEASE_CLEAN);
	PG_RETURN_INT32(count);
}

Datum
example_leave_open(PG_FUNCTION_ARGS)
{
	PolarxLease *lease = acquire(PG_GETARG_NAME(0));
	PGconn	   *conn = pooler.connection(lease);
	char	   *what = text_to_cstring(PG_GETARG_TEXT_PP(1));
	char	   *sql = text_to_cstring(PG_GETARG_TEXT_PP(2));
	int			pid = PQbackendPID(conn);

	if (strcmp(what, "done") == 0 || strcmp(what, "copy") == 0)
		PQclear(run(conn, sql));
	else if (strcmp(what, "unread") == 0)
	{
		if (!PQsendQuery(conn, sql) || !PQsetSingleRowMode(conn))
			elog(ERROR, "%s", PQerrorMessage(conn));
		PQclear(PQgetResult(conn));
	}
	else if (strcmp(what, "pipeline") == 0)
	{
		PQclear(run(conn, sql));
		if (!PQenterPipelineMode(conn))
			elog(ERROR, "%s", PQerrorMessage(conn));
	}
	else
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("unknown ending \"%s\"", what)));
	pooler.release(lease, POLARX_RELEASE_CLEAN);
	PG_RETURN_INT32(pid);
}
