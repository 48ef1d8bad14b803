// What a datanode answers in place of a result becomes a local error; in a backend, on its only
// thread.
#include <libpq-fe.h>

#include "pg/remote/errors.h"
#include "pg/prelude.h"

namespace polarx {
namespace {

// One code for the field of the datanode's report and of the local one.
constexpr int kObjectFields[] = {PG_DIAG_SCHEMA_NAME, PG_DIAG_TABLE_NAME, PG_DIAG_COLUMN_NAME,
                                 PG_DIAG_DATATYPE_NAME, PG_DIAG_CONSTRAINT_NAME};

const char* CopyField(const PGresult* result, int field) {
  const char* text = PQresultErrorField(result, field);
  return text == nullptr ? nullptr : pstrdup(text);
}

// Without the line end that libpq's messages have.
char* CopyTrimmed(const char* text) {
  int length = static_cast<int>(strlen(text));
  while (length > 0 && (text[length - 1] == '\n' || text[length - 1] == ' ')) {
    --length;
  }
  return pnstrdup(text, length);
}

int Sqlstate(const char* code) {
  if (code == nullptr || strlen(code) != 5) {
    return ERRCODE_CONNECTION_FAILURE;
  }
  return MAKE_SQLSTATE(code[0], code[1], code[2], code[3], code[4]);
}

int LevelOfNotice(const PGresult* result) {
  const char* severity = PQresultErrorField(result, PG_DIAG_SEVERITY_NONLOCALIZED);
  if (severity == nullptr) {
    return 0;
  }
  if (strcmp(severity, "WARNING") == 0) {
    return WARNING;
  }
  if (strcmp(severity, "NOTICE") == 0) {
    return NOTICE;
  }
  return strcmp(severity, "INFO") == 0 ? INFO : 0;
}

}  // namespace

RemoteError* CopyRemoteError(const PGresult* result) {
  const char* primary = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
  RemoteError* error = MakeRemoteError(Sqlstate(PQresultErrorField(result, PG_DIAG_SQLSTATE)),
                                       primary != nullptr ? primary : PQresultErrorMessage(result),
                                       CopyField(result, PG_DIAG_MESSAGE_DETAIL),
                                       CopyField(result, PG_DIAG_MESSAGE_HINT));
  error->context = CopyField(result, PG_DIAG_CONTEXT);
  for (size_t i = 0; i < lengthof(kObjectFields); ++i) {
    error->object_names[i] = CopyField(result, kObjectFields[i]);
  }
  return error;
}

RemoteError* MakeRemoteError(int sqlstate, const char* message, const char* detail,
                             const char* hint) {
  auto* error = static_cast<RemoteError*>(palloc0(sizeof(RemoteError)));
  error->sqlstate = sqlstate;
  error->message = CopyTrimmed(message);
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
                         *reason != '\0' ? CopyTrimmed(reason) : nullptr, nullptr);
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
      errcontext("%s", error->context);
    }
    for (size_t i = 0; i < lengthof(kObjectFields); ++i) {
      if (error->object_names[i] != nullptr) {
        err_generic_string(kObjectFields[i], error->object_names[i]);
      }
    }
    errcontext("statement on datanode \"%s\": %s", lease->node_name, sql);
    errfinish(__FILE__, __LINE__, __func__);
  }
  pg_unreachable();
}

// Called from inside libpq, which nothing may jump out of.
void ForwardNotice(void* arg, const PGresult* result) {
  const auto* lease = static_cast<const PolarxLease*>(arg);
  const int level = LevelOfNotice(result);
  const char* message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
  if (level == 0 || message == nullptr) {
    return;
  }
  const MemoryContext context = CurrentMemoryContext;
  const uint32 held = InterruptHoldoffCount;
  InterruptHoldoffCount = held + 1;
  PG_TRY();
  {
    ereport(level, (errcode(Sqlstate(PQresultErrorField(result, PG_DIAG_SQLSTATE))),
                    errmsg_internal("%s", message),
                    errcontext("message of datanode \"%s\"", lease->node_name)));
  }
  PG_CATCH();
  {
    MemoryContextSwitchTo(context);
    FlushErrorState();
  }
  PG_END_TRY();
  InterruptHoldoffCount = held;
}

}  // namespace polarx
