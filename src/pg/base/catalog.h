// What the catalog of this database says about nodes and user mappings; on the main thread of the
// pooler worker, in a backend only where that is said. Reading is the server's world and may
// ereport, building the values is C++ and does not: in between stand the plain structs below.
#pragma once

#include <vector>

#include "core/node.h"
#include "engine/pooler.h"

#include "pg/base/wrappers.h"
#include "pg/prelude.h"

namespace polarx {

struct RawOption {
  const char* name;
  const char* value;
};

struct RawOptions {
  int count;
  RawOption* items;
};

struct RawServer {
  Oid id;
  const char* name;
  bool usable;  // its wrapper is one whose servers are nodes
  bool member;  // its wrapper is polarx_pooler
  RawOptions options;
};

// A user mapping, or the answer to a question for one.
struct RawMapping {
  Oid server_id;
  const RawServer* server;    // nullptr: there is none
  Oid role;                   // InvalidOid: PUBLIC
  const char* role_name;      // nullptr: there is no such role
  bool superuser;             // that role
  const RawOptions* options;  // nullptr: there is no mapping for it
  bool asked;                 // by a session, so that its pool is not opened before a session comes
  const char* unread;         // why the catalog could not be asked; nullptr: it was
};

// What sessions have asked for.
struct RawQuestion {
  Oid server;
  Oid role;
};

struct RawCatalog {
  bool installed;  // are extension and wrapper there?
  const char* database;
  const char* encoding;
  List* servers;        // of RawServer*
  HTAB* servers_by_id;  // the same ones
  List* mappings;       // of RawMapping*
  HTAB* answered;       // of RawQuestion: what is in `mappings`
};

// These read inside a transaction, as it sees the catalog, and may ereport; what they return is
// palloc'd in the current context.

// Are extension and wrapper there?
bool CatalogInstalled();
// The nodes of the wrapper with their mappings, and answers to `asked`.
RawCatalog* CatalogRead(const RawQuestion* asked, int count);
// The answer to one question alone: exactly one mapping.
RawCatalog* CatalogReadOne(RawQuestion question);
// The servers of the wrapper alone. For backends.
RawCatalog* CatalogReadServers();
// The answer to a question while the catalog cannot be read, as `reason` says; outside of a
// transaction as well.
RawCatalog* CatalogUnread(RawQuestion question, const char* reason);

// Builds the engine's values. No ereport; throws where memory is used up.
std::vector<NodeDefinition> BuildNodes(const RawCatalog& catalog);
std::vector<MappingDefinition> BuildMappings(const RawCatalog& catalog);

}  // namespace polarx
