/*
 * The C interface of polarx_pooler for other extensions: borrow datanode connections from the pool
 * of this database, in a backend, on its only thread.
 *
 * Link against nothing: declare polarx_pooler in your control file's "requires" and fetch the
 * functions with load_external_function("$libdir/polarx_pooler", name, true, NULL), or use
 * PolarxPoolerLoad below.
 *
 * All functions but polarx_pooler_release may ereport(ERROR). A lease that is not released is
 * released at the end of the (sub)transaction it was acquired in: committed with it, it stays until
 * the top transaction ends; rolled back with it, it is closed or rolled back and returned.
 */
#ifndef POLARX_POOLER_H
#define POLARX_POOLER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct pg_conn;

/* A datanode connection that this session holds. Valid until it is released. */
typedef struct PolarxLease PolarxLease;

typedef enum PolarxReleaseKind {
  /*
   * outside a transaction, all results read: the connection is reset; the session may keep it
   * parked and be lent it again, as new, without asking the pooler
   */
  POLARX_RELEASE_CLEAN = 0,
  /* in sync, but inside an open or failed transaction: the pooler rolls back first */
  POLARX_RELEASE_IN_TRANSACTION = 1,
  /* anything else: the connection is closed */
  POLARX_RELEASE_CLOSE = 2,
  /*
   * as CLEAN, and nothing that ran on it has changed the state of the datanode's session (settings,
   * temporary tables, prepared statements, advisory locks, LISTEN): the session may keep it parked
   * and be lent it again as it is, at next to no cost
   */
  POLARX_RELEASE_PARK = 3
} PolarxReleaseKind;

/*
 * Acquires one connection to each of `count` (1..4096) different nodes, named by their foreign
 * servers, for the current role, in one request: all or none. Waits as pooler.queue_timeout says,
 * interruptibly. leases[i] is for nodes[i]. What the role has set by pooler.set_param() is set on
 * them; not what is local to the transaction, nor what is set later. Errors: the table of SQLSTATEs
 * in the README, and what a datanode says to those parameters.
 */
typedef void (*PolarxAcquireFunction)(const char* const* nodes, int count, PolarxLease** leases);
extern void polarx_pooler_acquire(const char* const* nodes, int count, PolarxLease** leases);

/*
 * The lease's connection, owned by the lease. Everything in libpq may be used on it but PQfinish,
 * PQreset*, PQgetCancel/PQcancel, PQhost, PQhostaddr and PQport. The PGconn may have served other
 * leases of this session and may serve more: what a borrower sets on it (notice receiver, trace,
 * verbosity) ends with the lease, and so does the memory that libpq took for large rows or messages
 * (but for what comes within a few milliseconds; while a lease is parked that memory stays). For
 * escaping use the functions that take the PGconn.
 */
typedef struct pg_conn* (*PolarxConnectionFunction)(PolarxLease* lease);
extern struct pg_conn* polarx_pooler_connection(PolarxLease* lease);

/* Name of the lease's node. */
typedef const char* (*PolarxNodeFunction)(PolarxLease* lease);
extern const char* polarx_pooler_node(PolarxLease* lease);

/*
 * Where the node is, in place of PQhost and PQport, which know nothing of it: host name, address or
 * socket directory, "" if its server names none; port. As its server says now; palloc'd.
 */
typedef const char* (*PolarxHostFunction)(PolarxLease* lease);
extern const char* polarx_pooler_host(PolarxLease* lease);
typedef int (*PolarxPortFunction)(PolarxLease* lease);
extern int polarx_pooler_port(PolarxLease* lease);

/*
 * Asks the datanode to cancel the statement that runs on the lease's connection. Returns at once;
 * the statement's result tells the outcome.
 */
typedef void (*PolarxCancelFunction)(PolarxLease* lease);
extern void polarx_pooler_cancel(PolarxLease* lease);

/*
 * Gives the lease back; never an error. A kind that claims too much is corrected by what the
 * connection's state shows. NULL does nothing. The lease and its connection are gone afterwards.
 */
typedef void (*PolarxReleaseFunction)(PolarxLease* lease, PolarxReleaseKind kind);
extern void polarx_pooler_release(PolarxLease* lease, PolarxReleaseKind kind);

/* The same for several leases at once, in one message to the pooler. */
typedef void (*PolarxReleaseAllFunction)(PolarxLease* const* leases, int count,
                                         PolarxReleaseKind kind);
extern void polarx_pooler_release_all(PolarxLease* const* leases, int count,
                                      PolarxReleaseKind kind);

/* The functions in one struct, for callers that load them. */
typedef struct PolarxPoolerFunctions {
  PolarxAcquireFunction acquire;
  PolarxConnectionFunction connection;
  PolarxNodeFunction node;
  PolarxCancelFunction cancel;
  PolarxReleaseFunction release;
  PolarxHostFunction host;
  PolarxPortFunction port;
  PolarxReleaseAllFunction release_all;
} PolarxPoolerFunctions;

/* Needs fmgr.h. Errors if the library is not installed. */
#define PolarxPoolerLoad(functions)                                              \
  do {                                                                           \
    (functions)->acquire = (PolarxAcquireFunction)load_external_function(        \
        "$libdir/polarx_pooler", "polarx_pooler_acquire", true, NULL);           \
    (functions)->connection = (PolarxConnectionFunction)load_external_function(  \
        "$libdir/polarx_pooler", "polarx_pooler_connection", true, NULL);        \
    (functions)->node = (PolarxNodeFunction)load_external_function(              \
        "$libdir/polarx_pooler", "polarx_pooler_node", true, NULL);              \
    (functions)->cancel = (PolarxCancelFunction)load_external_function(          \
        "$libdir/polarx_pooler", "polarx_pooler_cancel", true, NULL);            \
    (functions)->release = (PolarxReleaseFunction)load_external_function(        \
        "$libdir/polarx_pooler", "polarx_pooler_release", true, NULL);           \
    (functions)->host = (PolarxHostFunction)load_external_function(              \
        "$libdir/polarx_pooler", "polarx_pooler_host", true, NULL);              \
    (functions)->port = (PolarxPortFunction)load_external_function(              \
        "$libdir/polarx_pooler", "polarx_pooler_port", true, NULL);              \
    (functions)->release_all = (PolarxReleaseAllFunction)load_external_function( \
        "$libdir/polarx_pooler", "polarx_pooler_release_all", true, NULL);       \
  } while (0)

#ifdef __cplusplus
}
#endif

#endif /* POLARX_POOLER_H */
