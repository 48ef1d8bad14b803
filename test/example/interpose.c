/*
 * Looks over the shoulder of polarx_pooler in this backend: what it sends and receives is recorded,
 * or its next listener waits until strangers have come. For that the addresses by which the loaded
 * library calls the C library are replaced. In a backend, on its only thread; for tests.
 */
#include "postgres.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <link.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "fmgr.h"
#include "port/pg_bswap.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(misuse_record);
PG_FUNCTION_INFO_V1(misuse_stall_listen);

/* As in core/protocol.h. */
#define ATTACH_CODE 0x504C5801
#define ATTACH_SIZE 20

#define LIBRARY "/polarx_pooler.so"

typedef struct Replacement
{
	const char *name;
	void	   *function;
	int			done;			/* places where it is called from now */
} Replacement;

/* Of the pooler worker that this session has attached to last. */
extern uint64 seen_generation;
extern void watch_generation(void);
uint64		seen_generation = 0;

static int	sent_file = -1;
static int	received_file = -1;
static int	played_file = -1;
static char stall_path[MAXPGPATH];

static void
replace_in(const struct dl_phdr_info *info, const ElfW(Rela) *relocation, size_t size,
		   const ElfW(Sym) *symbols, const char *names, Replacement *wanted)
{
	long		page = sysconf(_SC_PAGESIZE);

	for (size_t i = 0; i < size / sizeof(*relocation); i++)
	{
		const char *name = names + symbols[ELF64_R_SYM(relocation[i].r_info)].st_name;
		void	  **place = (void **) (info->dlpi_addr + relocation[i].r_offset);

		if (strcmp(name, wanted->name) != 0)
			continue;
		if (mprotect((void *) ((uintptr_t) place & ~(uintptr_t) (page - 1)), page + sizeof(*place),
					 PROT_READ | PROT_WRITE) != 0)
			continue;
		*place = wanted->function;
		wanted->done++;
	}
}

static int
replace_in_library(struct dl_phdr_info *info, size_t size, void *wanted)
{
	const char *end = strrchr(info->dlpi_name, '/');
	const ElfW(Dyn) *entry = NULL;
	const ElfW(Rela) *tables[2] = {NULL, NULL};
	size_t		sizes[2] = {0, 0};
	const ElfW(Sym) *symbols = NULL;
	const char *names = NULL;

	if (end == NULL || strcmp(end, LIBRARY) != 0)
		return 0;
	for (int i = 0; i < info->dlpi_phnum; i++)
		if (info->dlpi_phdr[i].p_type == PT_DYNAMIC)
			entry = (const ElfW(Dyn) *) (info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
	for (; entry != NULL && entry->d_tag != DT_NULL; entry++)
	{
		switch (entry->d_tag)
		{
			case DT_JMPREL:
				tables[0] = (const ElfW(Rela) *) entry->d_un.d_ptr;
				break;
			case DT_PLTRELSZ:
				sizes[0] = entry->d_un.d_val;
				break;
			case DT_RELA:
				tables[1] = (const ElfW(Rela) *) entry->d_un.d_ptr;
				break;
			case DT_RELASZ:
				sizes[1] = entry->d_un.d_val;
				break;
			case DT_SYMTAB:
				symbols = (const ElfW(Sym) *) entry->d_un.d_ptr;
				break;
			case DT_STRTAB:
				names = (const char *) entry->d_un.d_ptr;
				break;
		}
	}
	for (int i = 0; i < 2; i++)
		if (tables[i] != NULL && symbols != NULL && names != NULL)
			replace_in(info, tables[i], sizes[i], symbols, names, wanted);
	return 1;
}

/* How often the library refers to the function. */
static int
replace(const char *name, void *function)
{
	Replacement wanted = {name, function, 0};

	(void) load_external_function("$libdir/polarx_pooler", "polarx_pooler_acquire", true, NULL);
	(void) dl_iterate_phdr(replace_in_library, &wanted);
	return wanted.done;
}

static void
record(int file, const void *bytes, ssize_t size)
{
	int			before = errno;

	if (size > 0 && write(file, bytes, size) != size)
		abort();
	errno = before;
}

static void
record_parts(int file, const struct msghdr *message, ssize_t size)
{
	for (size_t i = 0; i < message->msg_iovlen && size > 0; i++)
	{
		ssize_t		part = Min(size, (ssize_t) message->msg_iov[i].iov_len);

		record(file, message->msg_iov[i].iov_base, part);
		size -= part;
	}
}

static ssize_t
watching_sendmsg(int fd, const struct msghdr *message, int flags)
{
	const char *bytes = message->msg_iov[0].iov_base;
	uint32		code = 0;

	if (message->msg_iov[0].iov_len >= ATTACH_SIZE)
		memcpy(&code, bytes + 4, sizeof(code));
	if (pg_ntoh32(code) == ATTACH_CODE)
	{
		memcpy(&seen_generation, bytes + 12, sizeof(seen_generation));
		seen_generation = pg_ntoh64(seen_generation);
	}
	return sendmsg(fd, message, flags);
}

/* Before the session attaches for the first time. */
void
watch_generation(void)
{
	if (seen_generation == 0 && replace("sendmsg", watching_sendmsg) == 0)
		ereport(ERROR, (errmsg("the library calls other functions")));
}

static ssize_t
recording_send(int fd, const void *bytes, size_t size, int flags)
{
	ssize_t		sent = send(fd, bytes, size, flags);

	record(played_file, bytes, sent);
	return sent;
}

static ssize_t
recording_sendmsg(int fd, const struct msghdr *message, int flags)
{
	ssize_t		sent = sendmsg(fd, message, flags);

	record_parts(sent_file, message, sent);
	return sent;
}

static ssize_t
recording_recvmsg(int fd, struct msghdr *message, int flags)
{
	ssize_t		received = recvmsg(fd, message, flags);

	record_parts(received_file, message, received);
	return received;
}

static int
create_file(const char *path, const char *ending)
{
	int			file = open(psprintf("%s%s", path, ending),
							O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

	if (file < 0)
		ereport(ERROR, (errcode_for_file_access(),
						errmsg("could not create \"%s%s\": %m", path, ending)));
	return file;
}

Datum
misuse_record(PG_FUNCTION_ARGS)
{
	char	   *path = text_to_cstring(PG_GETARG_TEXT_PP(0));

	sent_file = create_file(path, ".sent");
	received_file = create_file(path, ".received");
	played_file = create_file(path, ".played");
	if (replace("sendmsg", recording_sendmsg) == 0 || replace("recvmsg", recording_recvmsg) == 0 ||
		replace("send", recording_send) == 0)
		ereport(ERROR, (errmsg("the library calls other functions")));
	PG_RETURN_VOID();
}

/* Tells the listener's name in a file and waits until that file is gone, a minute at most. */
static int
stalling_listen(int fd, int backlog)
{
	struct sockaddr_un address = {0};
	socklen_t	size = sizeof(address);
	int			result = listen(fd, backlog);

	if (stall_path[0] != '\0' &&
		getsockname(fd, (struct sockaddr *) &address, &size) == 0 &&
		address.sun_family == AF_UNIX && address.sun_path[0] == '\0')
	{
		int			file = create_file(stall_path, ".new");

		record(file, address.sun_path + 1, size - offsetof(struct sockaddr_un, sun_path) - 1);
		close(file);
		if (rename(psprintf("%s.new", stall_path), stall_path) != 0)
			abort();
		for (int i = 0; i < 6000 && access(stall_path, F_OK) == 0; i++)
			usleep(10000);
		stall_path[0] = '\0';
	}
	return result;
}

Datum
misuse_stall_listen(PG_FUNCTION_ARGS)
{
	text_to_cstring_buffer(PG_GETARG_TEXT_PP(0), stall_path, sizeof(stall_path));
	if (replace("listen", stalling_listen) == 0)
		ereport(ERROR, (errmsg("the library does not listen")));
	PG_RETURN_VOID();
}
