// A statement that needs a database for itself finds it free of its pooler worker, but only where
// the server would not refuse the statement anyway; DISCARD ALL reaches the datanodes. In a
// backend.
#include <chrono>
#include <cstring>

#include "core/time.h"

#include "pg/base/backends.h"
#include "pg/shared/registry.h"
#include "pg/remote/kept_leases.h"
#include "pg/remote/parameters.h"
#include "pg/session/park.h"
#include "pg/sql/utility_hook.h"

#include "pg/prelude.h"

namespace polarx {
namespace {

// So long, the server waits for other sessions to leave a database.
constexpr std::chrono::seconds kSolitude(5);
constexpr long kSolitudePollMs = 50;

// A database that a statement of this transaction has blocked.
struct Blocked {
  Oid database;
  int level;  // of its subtransaction
};

ProcessUtility_hook_type previous_hook = nullptr;
List* blocked = NIL;  // of Blocked*, in TopMemoryContext
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

bool HasForce(const DropdbStmt* statement) {
  for (int i = 0; i < list_length(statement->options); i++) {
    if (strcmp(static_cast<DefElem*>(list_nth(statement->options, i))->defname, "force") == 0) {
      return true;
    }
  }
  return false;
}

// Is the database used by what no FORCE ends?
bool IsHeld(Oid database) {
  int slots = 0;
  int active_slots = 0;
  (void)ReplicationSlotsCountDBSlots(database, &slots, &active_slots);
  return active_slots > 0 || CountDBSubscriptions(database) > 0;
}

Oid NeededByDrop(const DropdbStmt* statement) {
  FormData_pg_database row;
  const bool allowed = FindDatabase(statement->dbname, &row) && OwnsOther(row) &&
                       !row.datistemplate && !IsHeld(row.oid) &&
                       (!HasForce(statement) || CountDatabaseUse(row.oid).transactions == 0);
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
                       OwnsOther(row) && MayUseTablespace(tablespace) &&
                       get_tablespace_oid(tablespace, true) != row.dattablespace;
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

void Unblock(int index) {
  auto* entry = static_cast<Blocked*>(list_nth(blocked, index));
  blocked = list_delete_nth_cell(blocked, index);
  RegistryUnblock(entry->database);
  pfree(entry);
}

void Block(Oid database) {
  const MemoryContext context = MemoryContextSwitchTo(TopMemoryContext);
  auto* entry = static_cast<Blocked*>(palloc(sizeof(Blocked)));
  *entry = {database, GetCurrentTransactionNestLevel()};
  blocked = lappend(blocked, entry);
  MemoryContextSwitchTo(context);
  RegistryBlock(database);
}

// Is there a pooler worker, or one to come?
bool HasWorker(Oid database) {
  WorkerEntry entry;
  return RegistryLookup(database, &entry) && entry.state != WorkerState::kNone &&
         entry.state != WorkerState::kStopped;
}

[[noreturn]] void ThrowInUse(const Node* statement, const char* name, DatabaseUse use) {
  ereport(ERROR,
          (errcode(ERRCODE_OBJECT_IN_USE),
           IsA(statement, CreatedbStmt)
               ? errmsg("source database \"%s\" is being accessed by other users", name)
               : errmsg("database \"%s\" is being accessed by other users", name),
           errdetail("Other sessions in it: %d, prepared transactions: %d. Its pooler worker goes "
                     "on.",
                     use.sessions, use.transactions)));
  pg_unreachable();
}

// The server refuses such a statement while others use the database, after a while of waiting for
// them. The session waits here instead: till then the pooler worker is not disturbed.
void AwaitSolitude(Oid database, const Node* statement) {
  const TimePoint end = Now() + kSolitude;
  while (HasWorker(database)) {
    const DatabaseUse use = CountDatabaseUse(database);
    if (use.sessions == 0 && use.transactions == 0) {
      break;
    }
    if (Now() >= end) {
      const char* name = get_database_name(database);
      ThrowInUse(statement, name != nullptr ? name : "", use);
    }
    (void)WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, kSolitudePollMs,
                    WaitEventOf(Wait::kWorkerChange));
    ResetLatch(MyLatch);
    CHECK_FOR_INTERRUPTS();
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
  const Node* statement = planned->utilityStmt;
  if (!IsA(statement, DropdbStmt) || !HasForce(reinterpret_cast<const DropdbStmt*>(statement))) {
    AwaitSolitude(database, statement);
  }
  depth++;
  PG_TRY();
  {
    Block(database);
    RunNext(planned, query, read_only_tree, context, params, environment, receiver, completion);
    if (IsA(statement, DropdbStmt)) {
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
  while (depth == 0 && blocked != NIL) {
    Unblock(0);
  }
}

// What a subtransaction has done and undone, nobody will see.
void UtilityHookAfterLevel(int level, bool committed) noexcept {
  for (int i = list_length(blocked) - 1; i >= 0; i--) {
    auto* entry = static_cast<Blocked*>(list_nth(blocked, i));
    if (entry->level < level) {
      continue;
    }
    if (committed) {
      entry->level = level - 1;
    } else {
      Unblock(i);
    }
  }
}

void InstallUtilityHook() {
  previous_hook = ProcessUtility_hook;
  ProcessUtility_hook = PolarxProcessUtility;
}

}  // namespace polarx
