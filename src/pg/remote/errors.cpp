// What a datanode answers in place of a result becomes a local error; in a backend, on its only
// thread.
#include <libpq-fe.h>

#include "pg/base/text.h"
#include "pg/remote/errors.h"
#include "pg/prelude.h"

namespace polarx {
namespace {

// One code for the field of the datanode's report and of the local one.
constexpr int kObjectFields[] = {PG_DIAG_SCHEMA_NAME, PG_DIAG_TABLE_NAME, PG_DIAG_COLUMN_NAME,
                                 PG_DIAG_DATATYPE_NAME, PG_DIAG_CONSTRAINT_NAME};

// Longest text of which a position is shown, in bytes: it goes to the client and to the log.
constexpr size_t kLongestQuery = 16 * 1024;

char* CopyField(const PGconn* conn, const PGresult* result, int field) {
  const char* text = PQresultErrorField(result, field);
  const bool foreign = PQclientEncoding(conn) != GetDatabaseEncoding();
  return text == nullptr ? nullptr : MakeValid(pstrdup(text), foreign);
}

int NumberOf(const PGresult* result, int field) {
  const char* text = PQresultErrorField(result, field);
  return text == nullptr ? 0 : atoi(text);
}

// Without the line end that libpq's messages have.
char* CopyTrimmed(const char* text) {
  int length = static_cast<int>(strlen(text));
  while (length > 0 && (text[length - 1] == '\n' || text[length - 1] == ' ')) {
    --length;
  }
  return pnstrdup(text, length);
}

}  // namespace

int SqlstateOf(const char* code) {
  if (code == nullptr || strlen(code) != 5) {
    return ERRCODE_CONNECTION_FAILURE;
  }
  return MAKE_SQLSTATE(code[0], code[1], code[2], code[3], code[4]);
}

RemoteError* CopyRemoteError(const PGconn* conn, const PGresult* result) {
  const char* primary = CopyField(conn, result, PG_DIAG_MESSAGE_PRIMARY);
  RemoteError* error =
      MakeRemoteError(SqlstateOf(PQresultErrorField(result, PG_DIAG_SQLSTATE)),
                      primary != nullptr ? primary : PQresultErrorMessage(result),
                      CopyField(conn, result, PG_DIAG_MESSAGE_DETAIL),
                      CopyField(conn, result, PG_DIAG_MESSAGE_HINT));
  error->context = CopyField(conn, result, PG_DIAG_CONTEXT);
  error->query = CopyField(conn, result, PG_DIAG_INTERNAL_QUERY);
  error->position = NumberOf(result, error->query != nullptr ? PG_DIAG_INTERNAL_POSITION
                                                             : PG_DIAG_STATEMENT_POSITION);
  for (size_t i = 0; i < lengthof(kObjectFields); ++i) {
    error->object_names[i] = CopyField(conn, result, kObjectFields[i]);
  }
  return error;
}

RemoteError* MakeRemoteError(int sqlstate, const char* message, const char* detail,
                             const char* hint) {
  auto* error = static_cast<RemoteError*>(palloc0(sizeof(RemoteError)));
  error->sqlstate = sqlstate;
  error->message = MakeValid(CopyTrimmed(message));
  error->detail = detail;
  error->hint = hint;
  return error;
}

RemoteError* MakeConnectionLost(const PolarxLease* lease, const PGresult* result) {
  const char* reason = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
  if (reason == nullptr) {
    reason = result != nullptr ? PQresultErrorMessage(result) : PQerrorMessage(lease->conn);
  }
  return MakeRemoteError(ERRCODE_CONNECTION_FAILURE,
                         psprintf("connection to datanode \"%s\" was lost", lease->node_name),
                         *reason != '\0' ? MakeValid(CopyTrimmed(reason)) : nullptr, nullptr);
}

bool EndsConnection(const PGconn* conn, const PGresult* result) {
  const char* severity = PQresultErrorField(result, PG_DIAG_SEVERITY_NONLOCALIZED);
  return PQstatus(conn) != CONNECTION_OK || severity == nullptr || strcmp(severity, "ERROR") != 0;
}

void RaiseRemoteError(const RemoteError* error, const PolarxLease* lease, const char* sql) {
  if (errstart(ERROR, TEXTDOMAIN)) {
    errcode(error->sqlstate);
    errmsg_internal("%s", error->message);
    if (error->detail != nullptr) {
      errdetail_internal("%s", error->detail);
    }
    if (error->hint != nullptr) {
      errhint("%s", error->hint);
    }
    if (error->context != nullptr) {
      errcontext("%.*s", ContextLength(error->context), error->context);
    }
    const char* query = error->query != nullptr ? error->query : sql;
    if (error->position > 0 && strnlen(query, kLongestQuery + 1) <= kLongestQuery) {
      internalerrquery(query);
      internalerrposition(error->position);
    }
    for (size_t i = 0; i < lengthof(kObjectFields); ++i) {
      if (error->object_names[i] != nullptr) {
        err_generic_string(kObjectFields[i], error->object_names[i]);
      }
    }
    AddStatementContext(lease->node_name, sql);
    errfinish(__FILE__, __LINE__, __func__);
  }
  pg_unreachable();
}

}  // namespace polarx
