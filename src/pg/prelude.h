// The one door to the server's headers; the last include of every file in src/pg.
#pragma once

// PostgreSQL 15 leaves PGDLLEXPORT empty, which under -fvisibility=hidden exports nothing.
#define PGDLLEXPORT __attribute__((visibility("default")))

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wregister"
#if defined(__clang__)
#pragma GCC diagnostic ignored "-Wignored-attributes"
#endif

extern "C" {
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/reloptions.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/twophase.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "catalog/pg_foreign_data_wrapper.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_subscription.h"
#include "catalog/pg_tablespace.h"
#include "catalog/pg_type.h"
#include "catalog/pg_user_mapping.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "commands/tablespace.h"
#include "common/hashfn.h"
#include "common/relpath.h"
#include "fmgr.h"
#include "foreign/foreign.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/bgworker_internals.h"
#include "postmaster/interrupt.h"
#include "replication/slot.h"
#include "storage/condition_variable.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "storage/lwlock.h"
#include "storage/pmsignal.h"
#include "storage/predicate.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "storage/shmem.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/elog.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
}

#pragma GCC diagnostic pop

#include "pg/compat.h"

// HOLD_INTERRUPTS and RESUME_INTERRUPTS without `++` on a volatile, which C++20 deprecates.
inline void HoldInterrupts() { InterruptHoldoffCount = InterruptHoldoffCount + 1; }
inline void ResumeInterrupts() { InterruptHoldoffCount = InterruptHoldoffCount - 1; }

// Declares and registers an SQL function; 15's own macro would leave it hidden.
#define POLARX_FUNCTION(name)                               \
  extern "C" {                                              \
  PGDLLEXPORT Datum name(PG_FUNCTION_ARGS);                 \
  extern PGDLLEXPORT const Pg_finfo_record* pg_finfo_##name(void); \
  PG_FUNCTION_INFO_V1(name);                                \
  }                                                         \
  Datum name(PG_FUNCTION_ARGS)
