/*
 * A borrower that lets its lease be parked, in order or with something left on the connection. In a
 * backend, on its only thread; for tests.
 */
#include "postgres.h"

#include "extension/polarx_pooler/polarx_pooler.h"
#include "fmgr.h"
#include "libpq-fe.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(parking_park);
PG_FUNCTION_INFO_V1(parking_notices);

static PolarxPoolerFunctions pooler;
static int	notices = 0;

static void
count_notice(void *arg, const PGresult *notice)
{
	notices++;
}

/* What a borrower may have set on the PGconn itself. */
static void
dress(PGconn *conn)
{
	(void) PQsetNoticeReceiver(conn, count_notice, NULL);
	(void) PQsetErrorVerbosity(conn, PQERRORS_TERSE);
	(void) PQsetErrorContextVisibility(conn, PQSHOW_CONTEXT_ALWAYS);
	if (PQsetnonblocking(conn, 1) != 0)
		elog(ERROR, "%s", PQerrorMessage(conn));
}

/*
 * Runs a statement and gives the lease back as one that may be parked: done, with rows unread
 * (unread), in pipeline mode (pipeline), or with the PGconn changed (dressed). The process id at
 * the node.
 */
Datum
parking_park(PG_FUNCTION_ARGS)
{
	const char *names[1] = {NameStr(*PG_GETARG_NAME(0))};
	char	   *sql = text_to_cstring(PG_GETARG_TEXT_PP(1));
	char	   *ending = text_to_cstring(PG_GETARG_TEXT_PP(2));
	PolarxLease *lease;
	PGconn	   *conn;
	int			pid;

	PolarxPoolerLoad(&pooler);
	pooler.acquire(names, 1, &lease);
	conn = pooler.connection(lease);
	pid = PQbackendPID(conn);
	if (strcmp(ending, "unread") == 0)
	{
		if (!PQsendQuery(conn, sql) || !PQsetSingleRowMode(conn))
			elog(ERROR, "%s", PQerrorMessage(conn));
		PQclear(PQgetResult(conn));
	}
	else
		PQclear(PQexec(conn, sql));
	if (strcmp(ending, "pipeline") == 0 && !PQenterPipelineMode(conn))
		elog(ERROR, "%s", PQerrorMessage(conn));
	if (strcmp(ending, "dressed") == 0)
		dress(conn);
	pooler.release(lease, POLARX_RELEASE_PARK);
	PG_RETURN_INT32(pid);
}

/* How many notices have come to a borrower that left its receiver behind. */
Datum
parking_notices(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(notices);
}
