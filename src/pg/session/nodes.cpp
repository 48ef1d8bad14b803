// Foreign servers are looked up by name here, with the right to use them; in a backend, on its only
// thread.
#include "pg/base/wrappers.h"
#include "pg/session/nodes.h"
#include "pg/shared/registry.h"
#include "pg/prelude.h"

namespace polarx {
namespace {

void CheckUsage(Oid server, const char* name) {
  const AclResult allowed = CheckServerAcl(server, GetUserId(), ACL_USAGE);
  if (allowed != ACLCHECK_OK) {
    aclcheck_error(allowed, OBJECT_FOREIGN_SERVER, name);
  }
}

uint64 catalog_epoch = 0;

void NoteCatalogChange(Datum /*arg*/, int /*cache*/, uint32 /*hash*/) { ++catalog_epoch; }

// What ClientResolveNode has found; it stands until a server, wrapper or role changes. Where two
// names meet, the later one stays.
struct Resolved {
  NodeRef node;
  Oid role;
  uint64 epoch;
};
Resolved resolved[64];

int CompareNames(const void* left, const void* right) {
  return strcmp(static_cast<const NodeRef*>(left)->name, static_cast<const NodeRef*>(right)->name);
}

// By one look into each of two catalogs: for a new session looks are dear.
NodeRef FindDatanode(const char* name) {
  HeapTuple server = SearchSysCache1(FOREIGNSERVERNAME, CStringGetDatum(name));
  if (!HeapTupleIsValid(server)) {
    ereport(ERROR,
            (errcode(ERRCODE_UNDEFINED_OBJECT), errmsg("server \"%s\" does not exist", name)));
  }
  const auto* form = reinterpret_cast<Form_pg_foreign_server>(GETSTRUCT(server));
  NodeRef node;
  node.id = form->oid;
  strlcpy(node.name, NameStr(form->srvname), NAMEDATALEN);
  const Oid wrapper_id = form->srvfdw;
  ReleaseSysCache(server);
  const ForeignDataWrapper* wrapper = GetForeignDataWrapper(wrapper_id);
  if (!IsUsableWrapper(wrapper->fdwname)) {
    ereport(ERROR,
            (errcode(ERRCODE_WRONG_OBJECT_TYPE), errmsg("server \"%s\" is not a datanode", name),
             errdetail("Its foreign-data wrapper is \"%s\".", wrapper->fdwname),
             errhint("Use a server of %s.", kUsableWrappers)));
  }
  return node;
}

}  // namespace

uint64 ClientCatalogEpoch() {
  static bool watched = false;
  if (!watched) {
    for (const int cache :
         {FOREIGNSERVEROID, FOREIGNDATAWRAPPEROID, USERMAPPINGOID, AUTHOID, AUTHMEMROLEMEM}) {
      CacheRegisterSyscacheCallback(cache, NoteCatalogChange, static_cast<Datum>(0));
    }
    watched = true;
  }
  return catalog_epoch;
}

void ClientResolveNode(const char* name, NodeRef* node) {
  RegistryRequire();
  AcceptInvalidationMessages();  // another name may be that server's since the transaction began
  Resolved* known = &resolved[string_hash(name, NAMEDATALEN) % lengthof(resolved)];
  if (known->role != GetUserId() || known->epoch != ClientCatalogEpoch() ||
      strcmp(known->node.name, name) != 0) {
    const uint64 epoch = ClientCatalogEpoch();
    const NodeRef found = FindDatanode(name);
    CheckUsage(found.id, name);
    known->node = found;
    known->role = GetUserId();
    known->epoch = epoch;
  }
  *node = known->node;
}

Oid ClientFindNode(const char* name) {
  RegistryRequire();
  return FindDatanode(name).id;
}

NodeRef* ClientAllNodes(int* count) {
  RegistryRequire();
  const Oid wrapper = get_foreign_data_wrapper_oid(kWrapperName, false);
  int room = 16;
  auto* nodes = static_cast<NodeRef*>(palloc(sizeof(NodeRef) * room));
  *count = 0;
  Relation servers = table_open(ForeignServerRelationId, AccessShareLock);
  SysScanDesc scan = systable_beginscan(servers, InvalidOid, false, nullptr, 0, nullptr);
  while (HeapTuple tuple = systable_getnext(scan)) {
    const auto* form = reinterpret_cast<Form_pg_foreign_server>(GETSTRUCT(tuple));
    if (form->srvfdw != wrapper) {
      continue;
    }
    if (*count == room) {
      room *= 2;
      nodes = static_cast<NodeRef*>(repalloc(nodes, sizeof(NodeRef) * room));
    }
    nodes[*count].id = form->oid;
    strlcpy(nodes[*count].name, NameStr(form->srvname), NAMEDATALEN);
    ++*count;
  }
  systable_endscan(scan);
  table_close(servers, AccessShareLock);
  qsort(nodes, *count, sizeof(NodeRef), CompareNames);
  for (int i = 0; i < *count; ++i) {
    CheckUsage(nodes[i].id, nodes[i].name);
  }
  return nodes;
}

}  // namespace polarx
