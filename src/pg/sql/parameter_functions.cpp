// The SQL functions set_param and reset_params: parameters of the session on its datanode
// connections, those in use included. In a backend, on its only thread.
#include "pg/shared/registry.h"
#include "pg/remote/kept_leases.h"
#include "pg/remote/replay.h"
#include "pg/remote/transaction.h"
#include "pg/prelude.h"

using namespace polarx;

namespace {

[[noreturn]] void Refuse(const char* name, const char* detail, const char* hint) {
  ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
                  errmsg("parameter \"%s\" cannot be set for datanode sessions", name),
                  errdetail_internal("%s", detail), hint != nullptr ? errhint("%s", hint) : 0));
  pg_unreachable();
}

void RefuseUnfit(const char* name) {
  if (pg_strcasecmp(name, "role") == 0 || pg_strcasecmp(name, "session_authorization") == 0) {
    Refuse(name, "The user mapping of the current role decides who the session is on a datanode.",
           "Use SET ROLE on the coordinator, or another user mapping.");
  }
  if (pg_strcasecmp(name, "client_encoding") == 0) {
    Refuse(name, "Statements and rows are exchanged in the encoding of the coordinator's database.",
           nullptr);
  }
  if ((GetConfigOptionFlags(name, true) & GUC_NO_RESET_ALL) != 0) {
    Refuse(name, "It is of one transaction, or cannot be reset.", nullptr);
  }
}

// Of a library that the datanodes may have and the coordinator has not.
bool IsUnknownCustom(const char* name) {
  return strchr(name, '.') != nullptr && GetConfigOption(name, true, false) == nullptr &&
         MayNameParameter(name);
}

// What SET would refuse here to the current role is refused; objects that a value names may be on
// the datanodes alone.
void CheckLocally(const char* name, const char* value) {
  if (!IsUnknownCustom(name)) {
    (void)set_config_option(name, value, superuser() ? PGC_SUSET : PGC_USERSET, PGC_S_TEST,
                            GUC_ACTION_SET, false, 0, false);
  }
}

// On the nodes where the current role has a transaction open.
void RunWhereOpen(const NodeRef* nodes, int count, const char* sql, int values_count,
                  const char* const* values) {
  if (count > 0) {
    const StatementText statement = {sql, values_count, values, false};
    (void)TransactionRun(nodes, count, &statement, nullptr);
  }
}

void NoteUncertain(const NodeRef* nodes, int count, const char* name) {
  for (int i = 0; i < count; ++i) {
    if (PolarxLease* lease = TransactionLease(nodes[i].id)) {
      ReplayUncertain(lease, name);
    }
  }
}

// The names of the current role's parameters, each once; palloc'd.
const char** Names(int* count) {
  *count = 0;
  for (const SessionParameter* p = SessionParameters(); p != nullptr; p = p->next) {
    ++*count;
  }
  auto** names = static_cast<const char**>(palloc(sizeof(char*) * (*count + 1)));
  *count = 0;
  for (const SessionParameter* p = SessionParameters(); p != nullptr; p = p->next) {
    if (p->role == GetUserId()) {
      names[(*count)++] = p->name;
    }
  }
  return names;
}

// One statement for all of them.
char* ResetText(int count) {
  StringInfoData sql;
  initStringInfo(&sql);
  appendStringInfoString(&sql,
                         "SELECT pg_catalog.count(pg_catalog.set_config(n, NULL, false)) "
                         "FROM (VALUES ($1::pg_catalog.text)");
  for (int i = 2; i <= count; ++i) {
    appendStringInfo(&sql, ", ($%d)", i);
  }
  appendStringInfoString(&sql, ") AS v(n)");
  return sql.data;
}

}  // namespace

// set_param(name text, value text, is_local bool) void
POLARX_FUNCTION(polarx_set_param) {
  RegistryRequire();
  for (int i = 0; i < 2; ++i) {
    if (PG_ARGISNULL(i)) {
      ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
                      errmsg("parameter %s must not be null", i == 0 ? "name" : "value")));
    }
  }
  const char* values[] = {text_to_cstring(PG_GETARG_TEXT_PP(0)),
                          text_to_cstring(PG_GETARG_TEXT_PP(1))};
  const bool is_local = !PG_ARGISNULL(2) && PG_GETARG_BOOL(2);
  RefuseUnfit(values[0]);
  CheckLocally(values[0], values[1]);
  int count;
  const NodeRef* nodes = TransactionNodes(&count);
  if (!is_local) {
    NoteUncertain(nodes, count, values[0]);
  }
  RunWhereOpen(nodes, count,
               is_local ? "SELECT pg_catalog.set_config($1, $2, true)"
                        : "SELECT pg_catalog.set_config($1, $2, false)",
               2, values);
  SessionParametersSet(values[0], values[1], is_local);
  PG_RETURN_VOID();
}

// reset_params() void
POLARX_FUNCTION(polarx_reset_params) {
  (void)fcinfo;
  RegistryRequire();
  int names_count;
  const char** names = Names(&names_count);
  int count;
  const NodeRef* nodes = TransactionNodes(&count);
  for (int i = 0; i < names_count; ++i) {
    NoteUncertain(nodes, count, names[i]);
  }
  if (names_count > 0) {
    RunWhereOpen(nodes, count, ResetText(names_count), names_count, names);
    SessionParametersForget(GetUserId());
  }
  PG_RETURN_VOID();
}
