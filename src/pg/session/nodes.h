// Foreign servers by name, with the right to use them. In a backend, on its only thread.
#pragma once

#include "pg/prelude.h"

namespace polarx {

// A datanode that a request is for; the name is for messages.
struct NodeRef {
  // The oid of the foreign server.
  Oid id;
  char name[NAMEDATALEN];
};

// Returns a number that grows whenever a server, a user mapping or a role has changed, as far as
// this backend has heard: a lease from before may no longer be its role's due.
uint64 ClientCatalogEpoch();

// Looks the server up for the current role. Raises 42704 if there is none, 42809 if its wrapper is
// not a usable one (base/wrappers.h), 42501 without USAGE, 55000 if the library is not preloaded.
void ClientResolveNode(const char* name, NodeRef* node);
// Returns the server's oid, whatever the caller's rights. Raises as ClientResolveNode does.
Oid ClientFindNode(const char* name);
// Returns all servers of the wrapper polarx_pooler in the order of their names, palloc'd. Raises
// 42501 unless the current role has USAGE on each of them, 55000 without preloading.
NodeRef* ClientAllNodes(int* count);

}  // namespace polarx
