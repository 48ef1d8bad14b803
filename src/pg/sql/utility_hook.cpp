// A statement that needs a database for itself finds it free of its pooler worker, but only where
// the server would not refuse the statement anyway; DISCARD ALL reaches the datanodes. In a
// backend.
#include <cstring>

#include "pg/shared/registry.h"
#include "pg/remote/kept_leases.h"
#include "pg/remote/parameters.h"
#include "pg/session/park.h"
#include "pg/sql/utility_hook.h"

#include "pg/prelude.h"

namespace polarx {
namespace {

ProcessUtility_hook_type previous_hook = nullptr;
bool blocked = false;  // a database, by this backend
// Statements of this kind that run now; SET TABLESPACE commits in its middle.
int depth = 0;

// The pg_database row of `name`; false: there is none.
bool FindDatabase(const char* name, FormData_pg_database* row) {
  const Oid database = name != nullptr ? get_database_oid(name, true) : InvalidOid;
  if (!OidIsValid(database)) {
    return false;
  }
  HeapTuple tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(database));
  if (!HeapTupleIsValid(tuple)) {
    return false;
  }
  memcpy(row, GETSTRUCT(tuple), sizeof(*row));
  ReleaseSysCache(tuple);
  return true;
}

// May the current role have the tablespace of that name for a database?
bool MayUseTablespace(const char* name) {
  const Oid tablespace = get_tablespace_oid(name, true);
  return OidIsValid(tablespace) && tablespace != GLOBALTABLESPACE_OID &&
         CheckTablespaceAcl(tablespace, GetUserId(), ACL_CREATE) == ACLCHECK_OK;
}

// The server's own have_createdb_privilege() is not exported by all of PostgreSQL 15's releases.
bool MayCreateDatabases() {
  if (superuser()) {
    return true;
  }
  HeapTuple tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
  if (!HeapTupleIsValid(tuple)) {
    return false;
  }
  const bool allowed = reinterpret_cast<Form_pg_authid>(GETSTRUCT(tuple))->rolcreatedb;
  ReleaseSysCache(tuple);
  return allowed;
}

bool OwnsOther(const FormData_pg_database& row) {
  return row.oid != MyDatabaseId && OwnsDatabase(row.oid, GetUserId());
}

// Each of these returns the database that the statement needs for itself, or InvalidOid if the
// server will refuse the statement.

Oid NeededByDrop(const DropdbStmt* statement) {
  FormData_pg_database row;
  const bool allowed =
      FindDatabase(statement->dbname, &row) && OwnsOther(row) && !row.datistemplate;
  return allowed ? row.oid : InvalidOid;
}

Oid NeededByRename(const RenameStmt* statement) {
  FormData_pg_database row;
  const bool allowed = FindDatabase(statement->subname, &row) && OwnsOther(row) &&
                       MayCreateDatabases() &&
                       !OidIsValid(get_database_oid(statement->newname, true));
  return allowed ? row.oid : InvalidOid;
}

Oid NeededByMove(AlterDatabaseStmt* statement) {
  const char* tablespace = nullptr;
  for (int i = 0; i < list_length(statement->options); i++) {
    auto* option = static_cast<DefElem*>(list_nth(statement->options, i));
    if (strcmp(option->defname, "tablespace") == 0) {
      tablespace = defGetString(option);
    }
  }
  FormData_pg_database row;
  const bool allowed = tablespace != nullptr && FindDatabase(statement->dbname, &row) &&
                       OwnsOther(row) && MayUseTablespace(tablespace);
  return allowed ? row.oid : InvalidOid;
}

Oid NeededByCreate(CreatedbStmt* statement) {
  const char* template_name = "template1";
  bool options_allowed = true;
  for (int i = 0; i < list_length(statement->options); i++) {
    auto* option = static_cast<DefElem*>(list_nth(statement->options, i));
    if (option->arg == nullptr) {
      continue;  // DEFAULT
    }
    if (strcmp(option->defname, "template") == 0) {
      template_name = defGetString(option);
    } else if (strcmp(option->defname, "tablespace") == 0) {
      options_allowed = options_allowed && MayUseTablespace(defGetString(option));
    } else if (strcmp(option->defname, "owner") == 0) {
      const Oid owner = get_role_oid(defGetString(option), true);
      options_allowed =
          options_allowed && OidIsValid(owner) && is_member_of_role(GetUserId(), owner);
    }
  }
  FormData_pg_database row;
  const bool allowed =
      options_allowed && MayCreateDatabases() && FindDatabase(template_name, &row) &&
      (row.datistemplate || OwnsDatabase(row.oid, GetUserId())) &&
      row.oid != MyDatabaseId && !OidIsValid(get_database_oid(statement->dbname, true));
  return allowed ? row.oid : InvalidOid;
}

Oid NeededDatabase(Node* statement, bool outside_block) {
  switch (nodeTag(statement)) {
    case T_DropdbStmt:
      return outside_block ? NeededByDrop(reinterpret_cast<DropdbStmt*>(statement)) : InvalidOid;
    case T_AlterDatabaseStmt:
      return outside_block ? NeededByMove(reinterpret_cast<AlterDatabaseStmt*>(statement))
                           : InvalidOid;
    case T_CreatedbStmt:
      return outside_block ? NeededByCreate(reinterpret_cast<CreatedbStmt*>(statement))
                           : InvalidOid;
    case T_RenameStmt: {
      auto* rename = reinterpret_cast<RenameStmt*>(statement);
      return rename->renameType == OBJECT_DATABASE ? NeededByRename(rename) : InvalidOid;
    }
    default:
      return InvalidOid;
  }
}

extern "C" void RunNext(PlannedStmt* planned, const char* query, bool read_only_tree,
                        ProcessUtilityContext context, ParamListInfo params,
                        QueryEnvironment* environment, DestReceiver* receiver,
                        QueryCompletion* completion) {
  const auto next = previous_hook != nullptr ? previous_hook : standard_ProcessUtility;
  next(planned, query, read_only_tree, context, params, environment, receiver, completion);
}

extern "C" void RunAlone(Oid database, PlannedStmt* planned, const char* query,
                         bool read_only_tree, ProcessUtilityContext context, ParamListInfo params,
                         QueryEnvironment* environment, DestReceiver* receiver,
                         QueryCompletion* completion) {
  blocked = true;
  depth++;
  PG_TRY();
  {
    RegistryBlock(database);
    RunNext(planned, query, read_only_tree, context, params, environment, receiver, completion);
    if (IsA(planned->utilityStmt, DropdbStmt)) {
      RegistryForget(database);
    }
  }
  PG_FINALLY();
  {
    depth--;
  }
  PG_END_TRY();
}

bool IsDiscardAll(const Node* statement) {
  return IsA(statement, DiscardStmt) &&
         reinterpret_cast<const DiscardStmt*>(statement)->target == DISCARD_ALL;
}

// Does it change who the session is or what it has set? Then nothing that was acquired before stays
// with it.
bool ChangesSession(const Node* statement) {
  if (IsA(statement, DiscardStmt)) {
    return true;
  }
  if (!IsA(statement, VariableSetStmt)) {
    return false;
  }
  const auto* set = reinterpret_cast<const VariableSetStmt*>(statement);
  return set->kind == VAR_RESET_ALL ||
         (set->name != nullptr && (strcmp(set->name, "role") == 0 ||
                                   strcmp(set->name, "session_authorization") == 0 ||
                                   strcmp(set->name, "pooler.park_leases") == 0));
}

// What it means to the local session, it means to what the session has on datanodes.
void DiscardSession() {
  SessionParametersForget(InvalidOid);
  TransactionDiscardKept();
}

extern "C" void PolarxProcessUtility(PlannedStmt* planned, const char* query, bool read_only_tree,
                                     ProcessUtilityContext context, ParamListInfo params,
                                     QueryEnvironment* environment, DestReceiver* receiver,
                                     QueryCompletion* completion) {
  const bool discard_all = IsDiscardAll(planned->utilityStmt);
  const bool changes_session = ChangesSession(planned->utilityStmt);
  Oid database = InvalidOid;
  if (!RecoveryInProgress() && !XactReadOnly) {
    const bool top_level = context == PROCESS_UTILITY_TOPLEVEL;
    database = NeededDatabase(planned->utilityStmt, !IsInTransactionBlock(top_level));
  }
  if (OidIsValid(database)) {
    RunAlone(database, planned, query, read_only_tree, context, params, environment, receiver,
             completion);
  } else {
    RunNext(planned, query, read_only_tree, context, params, environment, receiver, completion);
  }
  if (discard_all) {
    DiscardSession();
  }
  if (changes_session) {
    ClientGiveBackParked();
  }
}

}  // namespace

// Other processes see what the statement did only when its transaction is over.
void UtilityHookAfterEnd() noexcept {
  if (blocked && depth == 0) {
    blocked = false;
    RegistryUnblockAll();
  }
}

void InstallUtilityHook() {
  previous_hook = ProcessUtility_hook;
  ProcessUtility_hook = PolarxProcessUtility;
}

}  // namespace polarx
