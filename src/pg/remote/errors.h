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
  // The text that `position` counts in, NULL: the statement's own; and the position, in characters
  // from 1, 0: none.
  const char* query;
  int position;
  // Schema, table, column, data type, constraint.
  const char* object_names[5];
};

// Copies the datanode's error, with texts that are valid in the database's encoding.
RemoteError* CopyRemoteError(const pg_conn* conn, const pg_result* result);
// Makes an error of our own, in the same form.
RemoteError* MakeRemoteError(int sqlstate, const char* message, const char* detail,
                             const char* hint);
// Makes an 08006 `connection to datanode "…" was lost`; the reason is `result`'s, or libpq's last
// one.
RemoteError* MakeConnectionLost(const PolarxLease* lease, const pg_result* result);

// Returns an SQLSTATE as MAKE_SQLSTATE makes it, 08006 unless `code` has five characters.
int SqlstateOf(const char* code);

// Returns whether the datanode, or libpq, ends the connection with this error.
bool EndsConnection(const pg_conn* conn, const pg_result* result);

// Raises the error with the context `statement on datanode "…": …`, and the position in the text
// that was sent.
[[noreturn]] void RaiseRemoteError(const RemoteError* error, const PolarxLease* lease,
                                   const char* sql);

}  // namespace polarx
