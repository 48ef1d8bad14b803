/*
 * A session that writes nonsense to the pooler's Unix socket: the pooler takes connections of its
 * database's own backends only, so the test's nonsense has to come from one. In a backend, on its
 * only thread.
 */
#include "postgres.h"

#include <sys/socket.h>
#include <unistd.h>

#include "fmgr.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

#include "misuse.h"

PG_FUNCTION_INFO_V1(example_hostile);

/* Reads until the pooler closes; returns how many bytes came. */
static int
await_close(int fd)
{
	int			total = 0;

	for (;;)
	{
		char		buffer[1024];
		ssize_t		n;

		(void) WaitLatchOrSocket(MyLatch, WL_LATCH_SET | WL_SOCKET_READABLE | WL_EXIT_ON_PM_DEATH,
								 fd, -1, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		n = recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT);
		if (n > 0)
			total += (int) n;
		else if (n == 0 || (errno != EAGAIN && errno != EINTR))
			return total;
	}
}

Datum
example_hostile(PG_FUNCTION_ARGS)
{
	char	   *path = text_to_cstring(PG_GETARG_TEXT_PP(0));
	bytea	   *data = PG_GETARG_BYTEA_PP(1);
	char	   *ending = text_to_cstring(PG_GETARG_TEXT_PP(2));
	int			fd = connect_to_pooler(path);
	int			received = 0;

	if (fd < 0)
		ereport(ERROR,
				(errcode_for_socket_access(),
				 errmsg("could not connect to \"%s\": %m", path)));

	/* The pooler may close before it has taken all: then the rest is of no interest. */
	(void) send(fd, VARDATA_ANY(data), VARSIZE_ANY_EXHDR(data), MSG_NOSIGNAL);
	if (strcmp(ending, "silence") == 0)
		PG_RETURN_INT32(0);
	if (strcmp(ending, "await") == 0)
		received = await_close(fd);
	close(fd);
	PG_RETURN_INT32(received);
}
