// What a datanode answers in place of a result becomes a local error; in a backend, on its only
// thread.
#pragma once

#include "pg/session/leases.h"

namespace polarx {

// An error as plain data that outlives its PGresult; palloc'd with its texts, NULL where there is
// none.
struct RemoteError {
  // The code as MAKE_SQLSTATE makes it.
  int sqlstate;
  const char* message;
  const char* detail;
  const char* hint;
  const char* context;
  // Schema, table, column, data type, constraint.
  const char* object_names[5];
};

// Copies the datanode's error.
RemoteError* CopyRemoteError(const pg_result* result);
// Makes an error of our own, in the same form.
RemoteError* MakeRemoteError(int sqlstate, const char* message, const char* detail,
                             const char* hint);
// Makes an 08006 `connection to datanode "…" was lost`; the reason is `result`'s, or libpq's last
// one.
RemoteError* MakeConnectionLost(const PolarxLease* lease, const pg_result* result);

// Returns whether the datanode, or libpq, ends the connection with this error.
bool EndsConnection(const pg_conn* conn, const pg_result* result);

// Raises the error with the context `statement on datanode "…": …`.
[[noreturn]] void RaiseRemoteError(const RemoteError* error, const PolarxLease* lease,
                                   const char* sql);

// Is a NoticeReceiver: the datanode's notices and warnings become local ones. `arg`: the lease.
void ForwardNotice(void* arg, const pg_result* result);

}  // namespace polarx
