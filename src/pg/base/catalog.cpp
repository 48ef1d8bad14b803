// Foreign servers, user mappings and roles are read from the catalog here; on the main thread of
// the pooler worker.
#include <cstring>

#include "pg/base/catalog.h"

#include "pg/prelude.h"

namespace polarx {
namespace {

bool IsUsable(Oid wrapper) {
  const ForeignDataWrapper* fdw = GetForeignDataWrapperExtended(wrapper, FDW_MISSING_OK);
  return fdw != nullptr && IsUsableWrapper(fdw->fdwname);
}

RawOptions CopyOptions(List* definitions) {
  RawOptions options = {0, nullptr};
  options.items =
      static_cast<RawOption*>(palloc0((list_length(definitions) + 1) * sizeof(RawOption)));
  for (int i = 0; i < list_length(definitions); i++) {
    auto* definition = static_cast<DefElem*>(list_nth(definitions, i));
    options.items[options.count++] = {pstrdup(definition->defname),
                                      pstrdup(defGetString(definition))};
  }
  return options;
}

RawOptions ReadOptions(Datum value, bool is_null) {
  return CopyOptions(is_null ? NIL : untransformRelOptions(value));
}

// A scan's tuples as a list of copies, in the current context.
List* ReadTable(Oid table, TupleDesc* description) {
  List* tuples = NIL;
  Relation relation = table_open(table, AccessShareLock);
  *description = CreateTupleDescCopy(RelationGetDescr(relation));
  SysScanDesc scan = systable_beginscan(relation, InvalidOid, false, nullptr, 0, nullptr);
  for (;;) {
    HeapTuple tuple = systable_getnext(scan);
    if (!HeapTupleIsValid(tuple)) {
      break;
    }
    tuples = lappend(tuples, heap_copytuple(tuple));
  }
  systable_endscan(scan);
  table_close(relation, AccessShareLock);
  return tuples;
}

struct ServerById {
  Oid id;
  const RawServer* server;
};

// A table by the key that its entries begin with, in the current context.
HTAB* MakeTable(const char* name, Size key_size, Size entry_size) {
  HASHCTL control = {};
  control.keysize = key_size;
  control.entrysize = entry_size;
  control.hcxt = CurrentMemoryContext;
  return hash_create(name, 256, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

const RawServer* FindServer(const RawCatalog* catalog, Oid id) {
  const auto* entry = static_cast<const ServerById*>(
      hash_search(catalog->servers_by_id, &id, HASH_FIND, nullptr));
  return entry != nullptr ? entry->server : nullptr;
}

RawServer* AddServer(RawCatalog* catalog, Oid id, const char* name, RawOptions options) {
  auto* server = static_cast<RawServer*>(palloc0(sizeof(RawServer)));
  server->id = id;
  server->name = pstrdup(name);
  server->usable = server->member = true;
  server->options = options;
  catalog->servers = lappend(catalog->servers, server);
  static_cast<ServerById*>(hash_search(catalog->servers_by_id, &id, HASH_ENTER, nullptr))->server =
      server;
  return server;
}

RawMapping* AddMapping(RawCatalog* catalog, Oid server, Oid role) {
  auto* mapping = static_cast<RawMapping*>(palloc0(sizeof(RawMapping)));
  mapping->server_id = server;
  mapping->server = FindServer(catalog, server);
  mapping->role = role;
  mapping->role_name = OidIsValid(role) ? GetUserNameFromId(role, true) : pstrdup("public");
  mapping->superuser = OidIsValid(role) && mapping->role_name != nullptr && superuser_arg(role);
  catalog->mappings = lappend(catalog->mappings, mapping);
  const RawQuestion key = {server, role};
  (void)hash_search(catalog->answered, &key, HASH_ENTER, nullptr);
  return mapping;
}

void ReadServers(RawCatalog* catalog, Oid wrapper) {
  TupleDesc description = nullptr;
  List* tuples = ReadTable(ForeignServerRelationId, &description);
  for (int i = 0; i < list_length(tuples); i++) {
    auto* tuple = static_cast<HeapTuple>(list_nth(tuples, i));
    auto* row = reinterpret_cast<Form_pg_foreign_server>(GETSTRUCT(tuple));
    if (row->srvfdw == wrapper) {
      bool is_null = false;
      const Datum options =
          heap_getattr(tuple, Anum_pg_foreign_server_srvoptions, description, &is_null);
      AddServer(catalog, row->oid, NameStr(row->srvname), ReadOptions(options, is_null));
    }
  }
}

void ReadMappings(RawCatalog* catalog) {
  TupleDesc description = nullptr;
  List* tuples = ReadTable(UserMappingRelationId, &description);
  for (int i = 0; i < list_length(tuples); i++) {
    auto* tuple = static_cast<HeapTuple>(list_nth(tuples, i));
    auto* row = reinterpret_cast<Form_pg_user_mapping>(GETSTRUCT(tuple));
    if (FindServer(catalog, row->umserver) != nullptr) {
      bool is_null = false;
      const Datum value =
          heap_getattr(tuple, Anum_pg_user_mapping_umoptions, description, &is_null);
      auto* options = static_cast<RawOptions*>(palloc(sizeof(RawOptions)));
      *options = ReadOptions(value, is_null);
      AddMapping(catalog, row->umserver, row->umuser)->options = options;
    }
  }
}

// Nullptr: that role (InvalidOid: PUBLIC) has no mapping of its own.
RawOptions* LookUpMapping(Oid server, Oid role) {
  HeapTuple tuple = SearchSysCache2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(role),
                                    ObjectIdGetDatum(server));
  if (!HeapTupleIsValid(tuple)) {
    return nullptr;
  }
  bool is_null = false;
  const Datum value = SysCacheGetAttr(USERMAPPINGUSERSERVER, tuple,
                                      Anum_pg_user_mapping_umoptions, &is_null);
  auto* options = static_cast<RawOptions*>(palloc(sizeof(RawOptions)));
  *options = ReadOptions(value, is_null);
  ReleaseSysCache(tuple);
  return options;
}

void Answer(RawCatalog* catalog, RawQuestion question) {
  if (FindServer(catalog, question.server) == nullptr) {
    const ForeignServer* server = GetForeignServerExtended(question.server, FSV_MISSING_OK);
    if (server != nullptr) {
      RawServer* added = AddServer(catalog, server->serverid, server->servername,
                                   CopyOptions(server->options));
      added->usable = IsUsable(server->fdwid);
      added->member = server->fdwid == get_foreign_data_wrapper_oid(kWrapperName, true);
    }
  }
  RawMapping* mapping = AddMapping(catalog, question.server, question.role);
  mapping->asked = true;
  if (!OidIsValid(question.role)) {
    mapping->role_name = nullptr;  // nobody is PUBLIC
  }
  if (mapping->server != nullptr && mapping->role_name != nullptr) {
    RawOptions* options = LookUpMapping(question.server, question.role);
    mapping->options = options != nullptr ? options : LookUpMapping(question.server, InvalidOid);
  }
}

RawCatalog* NewCatalog() {
  auto* catalog = static_cast<RawCatalog*>(palloc0(sizeof(RawCatalog)));
  catalog->servers_by_id = MakeTable("polarx_pooler servers", sizeof(Oid), sizeof(ServerById));
  catalog->answered =
      MakeTable("polarx_pooler mappings", sizeof(RawQuestion), sizeof(RawQuestion));
  return catalog;
}

RawCatalog* NewCatalogOfDatabase() {
  RawCatalog* catalog = NewCatalog();
  catalog->database = get_database_name(MyDatabaseId);
  catalog->encoding = GetDatabaseEncodingName();
  catalog->installed = catalog->database != nullptr && CatalogInstalled();
  return catalog;
}

}  // namespace

bool CatalogInstalled() {
  return OidIsValid(get_extension_oid(kExtensionName, true)) &&
         OidIsValid(get_foreign_data_wrapper_oid(kWrapperName, true));
}

RawCatalog* CatalogRead(const RawQuestion* asked, int count) {
  RawCatalog* catalog = NewCatalogOfDatabase();
  if (!catalog->installed) {
    return catalog;
  }
  ReadServers(catalog, get_foreign_data_wrapper_oid(kWrapperName, false));
  ReadMappings(catalog);
  for (int i = 0; i < count; i++) {
    if (hash_search(catalog->answered, &asked[i], HASH_FIND, nullptr) == nullptr) {
      Answer(catalog, asked[i]);
    }
  }
  return catalog;
}

RawCatalog* CatalogReadOne(RawQuestion question) {
  RawCatalog* catalog = NewCatalogOfDatabase();
  Answer(catalog, question);
  return catalog;
}

RawCatalog* CatalogUnread(RawQuestion question, const char* reason) {
  auto* mapping = static_cast<RawMapping*>(palloc0(sizeof(RawMapping)));
  mapping->server_id = question.server;
  mapping->role = question.role;
  mapping->asked = true;
  mapping->unread = pstrdup(reason);
  RawCatalog* catalog = NewCatalog();
  catalog->mappings = lappend(catalog->mappings, mapping);
  return catalog;
}

RawCatalog* CatalogReadServers() {
  RawCatalog* catalog = NewCatalog();
  ReadServers(catalog, get_foreign_data_wrapper_oid(kWrapperName, false));
  return catalog;
}

}  // namespace polarx
