/*
 * What no borrower of connections should do: speak the pooler's protocol by hand, fork, use a lease
 * that is gone, leave COPY half-way, run out of memory. In a backend, on its only thread.
 */
#include "postgres.h"

#include <malloc.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "executor/spi.h"
#include "extension/polarx_pooler/polarx_pooler.h"
#include "fmgr.h"
#include "libpq-fe.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "port/pg_bswap.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "utils/builtins.h"

#include "misuse.h"

PG_FUNCTION_INFO_V1(misuse_attach);
PG_FUNCTION_INFO_V1(misuse_send);
PG_FUNCTION_INFO_V1(misuse_receive);
PG_FUNCTION_INFO_V1(misuse_forked);
PG_FUNCTION_INFO_V1(misuse_after_release);
PG_FUNCTION_INFO_V1(misuse_copy_in);
PG_FUNCTION_INFO_V1(misuse_conninfo);
PG_FUNCTION_INFO_V1(misuse_without_memory);

/* As in core/protocol.h. */
#define ATTACH_CODE 0x504C5801
#define ATTACHED_CODE 0x504C5881

#define STACK_IN_USE (512 * 1024)

/* In interpose.c. */
extern uint64 seen_generation;
extern void watch_generation(void);

static PolarxPoolerFunctions pooler;
static int	spoken = -1;		/* the socket of misuse_attach, kept until the session ends */

int
connect_to_pooler(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	size_t		prefix = strlen(DataDir);
	int			fd;

	if (strncmp(path, DataDir, prefix) == 0 && path[prefix] == '/')
		path += prefix + 1;
	strlcpy(address.sun_path, path, sizeof(address.sun_path));
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, (struct sockaddr *) &address, sizeof(address)) < 0)
	{
		close(fd);
		return -1;
	}
	return fd;
}

/* Some bytes, waiting interruptibly; 0 at the end. Descriptors that come along are closed. */
static ssize_t
receive_some(int fd, void *bytes, size_t size)
{
	for (;;)
	{
		char		control[CMSG_SPACE(sizeof(int) * 253)];
		struct iovec part = {.iov_base = bytes, .iov_len = size};
		struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control,
		.msg_controllen = sizeof(control)};
		struct cmsghdr *came;
		ssize_t		got;

		(void) WaitLatchOrSocket(MyLatch, WL_LATCH_SET | WL_SOCKET_READABLE | WL_EXIT_ON_PM_DEATH,
								 fd, -1, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		got = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
		if (got < 0 && (errno == EAGAIN || errno == EINTR))
			continue;
		for (came = CMSG_FIRSTHDR(&message); got >= 0 && came != NULL; came = CMSG_NXTHDR(&message, came))
		{
			size_t		count = (came->cmsg_len - CMSG_LEN(0)) / sizeof(int);

			for (size_t i = 0; i < count; i++)
				close(((int *) CMSG_DATA(came))[i]);
		}
		return got < 0 ? 0 : got;
	}
}

/* One frame, its length first; NULL at the end. */
static bytea *
receive_frame(int fd)
{
	uint32		length;
	size_t		have = sizeof(length);
	bytea	   *frame;

	for (size_t got = 0; got < sizeof(length);)
	{
		ssize_t		more = receive_some(fd, (char *) &length + got, sizeof(length) - got);

		if (more == 0)
			return NULL;
		got += more;
	}
	frame = palloc(VARHDRSZ + pg_ntoh32(length));
	SET_VARSIZE(frame, VARHDRSZ + pg_ntoh32(length));
	memcpy(VARDATA(frame), &length, sizeof(length));
	while (have < pg_ntoh32(length))
	{
		ssize_t		more = receive_some(fd, VARDATA(frame) + have, pg_ntoh32(length) - have);

		if (more == 0)
			return NULL;
		have += more;
	}
	return frame;
}

/* The generation that the pooler worker demands is the one that this session has sent it. */
Datum
misuse_attach(PG_FUNCTION_ARGS)
{
	char	   *path = text_to_cstring(PG_GETARG_TEXT_PP(0));
	uint64		generation;
	uint32		attach[5] = {pg_hton32(sizeof(attach)), pg_hton32(ATTACH_CODE), pg_hton32(1)};
	uint32		code = 0;
	bytea	   *answer;

	watch_generation();
	SPI_connect();
	(void) SPI_execute("SELECT FROM pooler.nodes", true, 0);
	SPI_finish();
	generation = pg_hton64(seen_generation);
	memcpy(attach + 3, &generation, sizeof(generation));
	if (spoken >= 0)
		close(spoken);
	spoken = connect_to_pooler(path);
	if (spoken < 0 || send(spoken, attach, sizeof(attach), MSG_NOSIGNAL) != sizeof(attach))
		ereport(ERROR, (errcode_for_socket_access(), errmsg("could not attach: %m")));
	answer = receive_frame(spoken);
	if (answer != NULL)
		memcpy(&code, VARDATA(answer) + sizeof(code), sizeof(code));
	if (pg_ntoh32(code) != ATTACHED_CODE)
		ereport(ERROR, (errmsg("not attached")));
	PG_RETURN_VOID();
}

Datum
misuse_send(PG_FUNCTION_ARGS)
{
	bytea	   *data = PG_GETARG_BYTEA_PP(0);

	if (send(spoken, VARDATA_ANY(data), VARSIZE_ANY_EXHDR(data), MSG_NOSIGNAL) !=
		VARSIZE_ANY_EXHDR(data))
		ereport(ERROR, (errcode_for_socket_access(), errmsg("could not send: %m")));
	PG_RETURN_VOID();
}

Datum
misuse_receive(PG_FUNCTION_ARGS)
{
	bytea	   *frame = receive_frame(spoken);

	if (frame == NULL)
		PG_RETURN_NULL();
	PG_RETURN_BYTEA_P(frame);
}

/* What the child got, or -1 where it could not even connect. */
Datum
misuse_forked(PG_FUNCTION_ARGS)
{
	char	   *path = text_to_cstring(PG_GETARG_TEXT_PP(0));
	bytea	   *data = PG_GETARG_BYTEA_PP(1);
	int			ends[2];
	int			received = -1;
	pid_t		child;

	if (pipe(ends) != 0 || (child = fork()) < 0)
		ereport(ERROR, (errmsg("could not fork: %m")));
	if (child == 0)
	{
		char		buffer[4096];
		int			fd = connect_to_pooler(path);
		ssize_t		got;

		if (fd >= 0)
		{
			received = 0;
			(void) send(fd, VARDATA_ANY(data), VARSIZE_ANY_EXHDR(data), MSG_NOSIGNAL);
			while ((got = recv(fd, buffer, sizeof(buffer), 0)) > 0)
				received += (int) got;
		}
		_exit(write(ends[1], &received, sizeof(received)) == sizeof(received) ? 0 : 1);
	}
	close(ends[1]);
	if (read(ends[0], &received, sizeof(received)) != sizeof(received))
		received = -1;
	close(ends[0]);
	while (waitpid(child, NULL, 0) < 0 && errno == EINTR)
		;
	PG_RETURN_INT32(received);
}

static PolarxLease *
acquire(Name node)
{
	const char *names[1] = {NameStr(*node)};
	PolarxLease *lease;

	PolarxPoolerLoad(&pooler);
	pooler.acquire(names, 1, &lease);
	return lease;
}

Datum
misuse_after_release(PG_FUNCTION_ARGS)
{
	PolarxLease *lease = acquire(PG_GETARG_NAME(0));
	char	   *call = text_to_cstring(PG_GETARG_TEXT_PP(1));

	pooler.release(lease, POLARX_RELEASE_CLEAN);
	if (strcmp(call, "release") == 0)
		pooler.release(lease, POLARX_RELEASE_CLEAN);
	else if (strcmp(call, "close") == 0)
		pooler.release(lease, POLARX_RELEASE_CLOSE);
	else if (strcmp(call, "cancel") == 0)
		pooler.cancel(lease);
	else if (strcmp(call, "connection") == 0)
		PQclear(PQexec(pooler.connection(lease), "SELECT 1"));
	else if (strcmp(call, "node") == 0)
		PG_RETURN_TEXT_P(cstring_to_text(pooler.node(lease)));
	else if (strcmp(call, "host") == 0)
		PG_RETURN_TEXT_P(cstring_to_text(pooler.host(lease)));
	else if (strcmp(call, "port") == 0)
		PG_RETURN_TEXT_P(cstring_to_text(psprintf("%d", pooler.port(lease))));
	PG_RETURN_TEXT_P(cstring_to_text("done"));
}

/* The lease stays, in the middle of a row. */
Datum
misuse_copy_in(PG_FUNCTION_ARGS)
{
	PolarxLease *lease = acquire(PG_GETARG_NAME(0));
	PGconn	   *conn = pooler.connection(lease);
	char	   *table = text_to_cstring(PG_GETARG_TEXT_PP(1));
	PGresult   *result = PQexec(conn, psprintf("COPY %s FROM STDIN", quote_identifier(table)));
	bool		started = PQresultStatus(result) == PGRES_COPY_IN;

	PQclear(result);
	if (!started || PQputCopyData(conn, "1\n2", 3) != 1 || PQflush(conn) != 0)
		ereport(ERROR, (errmsg("no COPY: %s", PQerrorMessage(conn))));
	PG_RETURN_INT32(PQbackendPID(conn));
}

/* All that libpq says about a lent connection, one option a line. */
Datum
misuse_conninfo(PG_FUNCTION_ARGS)
{
	PolarxLease *lease = acquire(PG_GETARG_NAME(0));
	PQconninfoOption *options = PQconninfo(pooler.connection(lease));
	StringInfoData out;

	initStringInfo(&out);
	for (PQconninfoOption *option = options; option != NULL && option->keyword != NULL; option++)
		if (option->val != NULL)
			appendStringInfo(&out, "%s=%s\n", option->keyword, option->val);
	PQconninfoFree(options);
	pooler.release(lease, POLARX_RELEASE_CLEAN);
	PG_RETURN_TEXT_P(cstring_to_text(out.data));
}

/* The stack cannot grow either without memory, so it grows before. */
static void
touch_stack(void)
{
	volatile char stack[STACK_IN_USE];

	for (size_t i = 0; i < sizeof(stack); i += 1024)
		stack[i] = 1;
}

typedef struct Ballast
{
	struct Ballast *next;
} Ballast;

/* Takes all memory that malloc can give without asking the system for more. */
static Ballast *
take_memory(void)
{
	Ballast    *all = NULL;

	for (size_t size = 1024 * 1024; size >= sizeof(Ballast); size /= 2)
	{
		Ballast    *piece;

		while ((piece = malloc(size)) != NULL)
		{
			piece->next = all;
			all = piece;
		}
	}
	return all;
}

static void
give_memory(Ballast *all)
{
	while (all != NULL)
	{
		Ballast    *next = all->next;

		free(all);
		all = next;
	}
}

Datum
misuse_without_memory(PG_FUNCTION_ARGS)
{
	char	   *sql = text_to_cstring(PG_GETARG_TEXT_PP(1));
	struct rlimit old;
	struct rlimit tight;
	Ballast    *volatile ballast;
	void	   *volatile spare;	/* else the compiler leaves it out */

	/* What is freed stays in this process. */
	mallopt(M_MMAP_THRESHOLD, 32 * 1024 * 1024);
	mallopt(M_TRIM_THRESHOLD, INT_MAX);
	touch_stack();
	SPI_connect();
	spare = malloc(PG_GETARG_INT32(0));
	getrlimit(RLIMIT_AS, &old);
	tight = old;
	tight.rlim_cur = 0;
	setrlimit(RLIMIT_AS, &tight);
	ballast = take_memory();
	free(spare);
	PG_TRY();
	{
		(void) SPI_execute(sql, false, 0);
	}
	PG_FINALLY();
	{
		setrlimit(RLIMIT_AS, &old);
		give_memory(ballast);
	}
	PG_END_TRY();
	SPI_finish();
	PG_RETURN_VOID();
}
