/* What several files of the tests' misuse share. */
#ifndef MISUSE_H
#define MISUSE_H

/*
 * A connected socket, or -1 with errno. The path is used relative to the data directory, as it may
 * be longer than sun_path holds.
 */
extern int	connect_to_pooler(const char *path);

#endif							/* MISUSE_H */
