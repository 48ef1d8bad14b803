/*
 * The loops that the benchmark measures inside a session: acquire and release through the C
 * interface, connect and close, statements; in a backend, on its only thread.
 *
 * They wait for the datanode as libpq does, uninterruptibly: every operation is short.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "extension/polarx_pooler/polarx_pooler.h"
#include "fmgr.h"
#include "libpq-fe.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "samples.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(bench_acquire);
PG_FUNCTION_INFO_V1(bench_retake);
PG_FUNCTION_INFO_V1(bench_connect);
PG_FUNCTION_INFO_V1(bench_statements);

void		_PG_init(void);

static PolarxPoolerFunctions pooler;

void
_PG_init(void)
{
	PolarxPoolerLoad(&pooler);
}

/* Reads the row with that key; false where that fails. */
static bool
read_row(PGconn *conn, int key)
{
	char		sql[64];
	PGresult   *result;
	bool		ok;

	snprintf(sql, sizeof(sql), "SELECT value FROM item WHERE id = %d;", key);
	result = PQexec(conn, sql);
	ok = PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) == 1;
	PQclear(result);
	return ok;
}

static void
row_error(void)
{
	ereport(ERROR, (errmsg("the datanode did not return the row")));
}

static void
acquire_and_release(const char **nodes, int count, PolarxLease **leases, bool with_row)
{
	pooler.acquire(nodes, count, leases);
	for (int i = 0; with_row && i < count; i++)
		if (!read_row(pooler.connection(leases[i]), 1))
			row_error();
	pooler.release_all(leases, count, POLARX_RELEASE_CLEAN);
}

Datum
bench_acquire(PG_FUNCTION_ARGS)
{
	Datum	   *names;
	int			count;
	const char **nodes;
	PolarxLease **leases;
	bool		with_row = PG_GETARG_BOOL(1);
	int			pause_us = PG_GETARG_INT32(4);
	Samples		samples;
	MemoryContext loop_context;
	MemoryContext old_context;

	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), NAMEOID, NAMEDATALEN, false, TYPALIGN_CHAR, &names,
					  NULL, &count);
	nodes = palloc(count * sizeof(*nodes));
	leases = palloc(count * sizeof(*leases));
	for (int i = 0; i < count; i++)
		nodes[i] = NameStr(*DatumGetName(names[i]));

	acquire_and_release(nodes, count, leases, with_row);
	samples_begin(&samples, PG_GETARG_FLOAT8(2), PG_GETARG_FLOAT8(3));
	loop_context =
		AllocSetContextCreate(CurrentMemoryContext, "bench_acquire", ALLOCSET_DEFAULT_SIZES);
	old_context = MemoryContextSwitchTo(loop_context);
	while (samples_go_on(&samples))
	{
		double		start = now_us();

		acquire_and_release(nodes, count, leases, with_row);
		samples_add(&samples, now_us() - start);
		MemoryContextReset(loop_context);
		if (pause_us > 0)
			pause_for(pause_us);
	}
	MemoryContextSwitchTo(old_context);
	return samples_result(&samples, fcinfo);
}

/* Only the acquire is timed; the release before it has parked the lease. */
Datum
bench_retake(PG_FUNCTION_ARGS)
{
	const char *node = NameStr(*PG_GETARG_NAME(0));
	PolarxLease *lease;
	Samples		samples;
	MemoryContext loop_context;
	MemoryContext old_context;

	pooler.acquire(&node, 1, &lease);
	pooler.release(lease, POLARX_RELEASE_PARK);
	samples_begin(&samples, PG_GETARG_FLOAT8(1), PG_GETARG_FLOAT8(2));
	loop_context =
		AllocSetContextCreate(CurrentMemoryContext, "bench_retake", ALLOCSET_DEFAULT_SIZES);
	old_context = MemoryContextSwitchTo(loop_context);
	while (samples_go_on(&samples))
	{
		double		start = now_us();

		pooler.acquire(&node, 1, &lease);
		samples_add(&samples, now_us() - start);
		pooler.release(lease, POLARX_RELEASE_PARK);
		MemoryContextReset(loop_context);
	}
	MemoryContextSwitchTo(old_context);
	return samples_result(&samples, fcinfo);
}

/* A new connection, or an error. */
static PGconn *
connect_to(const char *conninfo)
{
	PGconn	   *conn = PQconnectdb(conninfo);

	if (PQstatus(conn) != CONNECTION_OK)
	{
		char	   *message = pchomp(PQerrorMessage(conn));

		PQfinish(conn);
		ereport(ERROR, (errcode(ERRCODE_CONNECTION_FAILURE), errmsg("%s", message)));
	}
	return conn;
}

static void
connect_and_finish(const char *conninfo, bool with_row)
{
	PGconn	   *conn = connect_to(conninfo);
	bool		ok = !with_row || read_row(conn, 1);

	PQfinish(conn);
	if (!ok)
		row_error();
}

Datum
bench_connect(PG_FUNCTION_ARGS)
{
	const char *conninfo = text_to_cstring(PG_GETARG_TEXT_PP(0));
	bool		with_row = PG_GETARG_BOOL(1);
	Samples		samples;

	connect_and_finish(conninfo, with_row);
	samples_begin(&samples, PG_GETARG_FLOAT8(2), PG_GETARG_FLOAT8(3));
	while (samples_go_on(&samples))
	{
		double		start = now_us();

		connect_and_finish(conninfo, with_row);
		samples_add(&samples, now_us() - start);
	}
	return samples_result(&samples, fcinfo);
}

Datum
bench_statements(PG_FUNCTION_ARGS)
{
	PolarxLease *lease = NULL;
	PGconn	   *conn;
	int			rows = PG_GETARG_INT32(2);
	bool		ok;
	Samples		samples;

	if (!PG_ARGISNULL(0))
	{
		const char *nodes[1] = {NameStr(*PG_GETARG_NAME(0))};

		pooler.acquire(nodes, 1, &lease);
		conn = pooler.connection(lease);
	}
	else
		conn = connect_to(text_to_cstring(PG_GETARG_TEXT_PP(1)));

	ok = read_row(conn, 1);
	samples_begin(&samples, PG_GETARG_FLOAT8(3), PG_GETARG_FLOAT8(4));
	/* An interrupt leaves a connection that was opened here to the end of the session. */
	while (ok && samples_go_on(&samples))
	{
		double		start = now_us();

		ok = read_row(conn, random() % rows + 1);
		samples_add(&samples, now_us() - start);
	}
	if (lease != NULL)
		pooler.release(lease, POLARX_RELEASE_CLEAN);
	else
		PQfinish(conn);
	if (!ok)
		row_error();
	return samples_result(&samples, fcinfo);
}
