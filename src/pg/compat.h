// What differs between the servers' versions, PostgreSQL 15 to 18: here and nowhere else. Part of
// prelude.h, behind the server's headers.
#pragma once

#if PG_VERSION_NUM >= 180000
#define POLARX_MODULE_MAGIC(text) PG_MODULE_MAGIC_EXT(.name = "polarx_pooler", .version = text)
#else
#define POLARX_MODULE_MAGIC(text) PG_MODULE_MAGIC
#endif

namespace polarx {

// Where a backend or background worker stands among them: 0 to MaxBackends - 1. No two processes
// have one place at the same time; a process that ends leaves its place to a later one.
using BackendPlace = int;
constexpr BackendPlace kNoPlace = -1;

#if PG_VERSION_NUM >= 170000
inline BackendPlace PlaceWithin(ProcNumber number) {
  return number >= 0 && number < MaxBackends ? number : kNoPlace;
}
inline BackendPlace PlaceOf(PGPROC* process) { return PlaceWithin(GetNumberFromPGProc(process)); }
inline BackendPlace MyPlace() { return PlaceWithin(MyProcNumber); }
#else
inline BackendPlace PlaceWithin(BackendId id) {
  return id > 0 && id <= MaxBackends ? id - 1 : kNoPlace;
}
inline BackendPlace PlaceOf(PGPROC* process) { return PlaceWithin(process->backendId); }
inline BackendPlace MyPlace() { return PlaceWithin(MyBackendId); }
#endif

#if PG_VERSION_NUM >= 160000
inline AclResult CheckServerAcl(Oid server, Oid role, AclMode mode) {
  return object_aclcheck(ForeignServerRelationId, server, role, mode);
}
inline AclResult CheckTablespaceAcl(Oid tablespace, Oid role, AclMode mode) {
  return object_aclcheck(TableSpaceRelationId, tablespace, role, mode);
}
inline bool OwnsDatabase(Oid database, Oid role) {
  return object_ownercheck(DatabaseRelationId, database, role);
}
#else
inline AclResult CheckServerAcl(Oid server, Oid role, AclMode mode) {
  return pg_foreign_server_aclcheck(server, role, mode);
}
inline AclResult CheckTablespaceAcl(Oid tablespace, Oid role, AclMode mode) {
  return pg_tablespace_aclcheck(tablespace, role, mode);
}
inline bool OwnsDatabase(Oid database, Oid role) {
  return pg_database_ownercheck(database, role);
}
#endif

// May a parameter that the server does not know have that name? Returns false or raises an error if
// not; after false set_config_option raises it.
inline bool MayNameParameter(const char* name) {
#if PG_VERSION_NUM >= 160000
  check_GUC_name_for_parameter_acl(name);
  return true;
#else
  return check_GUC_name_for_parameter_acl(name);
#endif
}

// Is the process a session of a client, and no background process? Version 18 does not
// count senders of WAL.
inline bool IsClientSession(const PGPROC* process) {
#if PG_VERSION_NUM >= 180000
  return process->isRegularBackend;
#else
  return !process->isBackgroundWorker;
#endif
}

// Has the postmaster a worker with that main function in its list? Where there is no room it only
// logs that it has not registered one. The server's macros for lists are no C++.
inline bool IsRegisteredWorker(const char* function) {
#if PG_VERSION_NUM >= 180000
  const dlist_node* end = &BackgroundWorkerList.head;
  const dlist_node* node = end->next;
#else
  const slist_node* end = nullptr;
  const slist_node* node = BackgroundWorkerList.head.next;
#endif
  for (; node != nullptr && node != end; node = node->next) {
    const auto* worker = reinterpret_cast<const RegisteredBgWorker*>(
        reinterpret_cast<const char*>(node) - offsetof(RegisteredBgWorker, rw_lnode));
    if (strcmp(worker->rw_worker.bgw_function_name, function) == 0) {
      return true;
    }
  }
  return false;
}

// A set for so many events that lives as long as the process.
inline WaitEventSet* MakeWaitEventSet(int events) {
#if PG_VERSION_NUM >= 170000
  return CreateWaitEventSet(nullptr, events);
#else
  return CreateWaitEventSet(TopMemoryContext, events);
#endif
}

// What a process of this extension waits for; shown in pg_stat_activity, by name from 17 on.
enum class Wait { kLauncherMain, kWorkerMain, kWorkerChange, kPoolerReply, kDatanode };

// What the server's waiting functions take. May raise an error when the process first asks.
inline uint32 WaitEventOf([[maybe_unused]] Wait wait) {
#if PG_VERSION_NUM >= 170000
  static constexpr const char* kNames[] = {"PolarxLauncherMain", "PolarxWorkerMain",
                                           "PolarxWorkerChange", "PolarxPoolerReply",
                                           "PolarxDatanode"};
  static uint32 known[lengthof(kNames)] = {};
  uint32& event = known[static_cast<int>(wait)];
  if (event == 0) {
    event = WaitEventExtensionNew(kNames[static_cast<int>(wait)]);
  }
  return event;
#else
  return PG_WAIT_EXTENSION;
#endif
}

}  // namespace polarx
