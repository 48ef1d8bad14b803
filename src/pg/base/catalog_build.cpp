// The engine's values are made from what was read in the catalog; on the main thread of the pooler
// worker. Nothing here may ereport.
#include <algorithm>
#include <charconv>
#include <string>
#include <string_view>

#include "core/conninfo.h"
#include "engine/libpq_options.h"

#include "pg/base/catalog.h"

#include "pg/prelude.h"

namespace polarx {
namespace {

constexpr const char* kWrongObjectType = "42809";
constexpr const char* kLockNotAvailable = "55P03";

Options BuildOptions(const RawOptions& raw) {
  Options options;
  for (int i = 0; i < raw.count; i++) {
    options.emplace_back(raw.items[i].name, raw.items[i].value);
  }
  std::sort(options.begin(), options.end());
  return options;
}

const char* FindOption(const RawOptions& options, std::string_view name) {
  for (int i = 0; i < options.count; i++) {
    if (options.items[i].name == name) {
      return options.items[i].value;
    }
  }
  return nullptr;
}

int FindNumber(const RawOptions& options, std::string_view name, int otherwise) {
  const char* text = FindOption(options, name);
  int number = otherwise;
  if (text != nullptr) {
    const std::string_view digits(text);
    (void)std::from_chars(digits.data(), digits.data() + digits.size(), number);
  }
  return number;
}

NodeDefinition BuildNode(const RawServer& server) {
  NodeDefinition node;
  node.id = server.id;
  node.name = server.name;
  if (const char* address = FindOption(server.options, "hostaddr"); address != nullptr) {
    node.host = node.hostaddr = address;
  }
  if (const char* host = FindOption(server.options, "host"); host != nullptr) {
    node.host = host;
  }
  node.port = FindNumber(server.options, "port", node.port);
  node.max_pool_size = FindNumber(server.options, "max_pool_size", -1);
  node.min_pool_size = FindNumber(server.options, "min_pool_size", -1);
  node.min_free_size = FindNumber(server.options, "min_free_size", -1);
  node.member = server.member;
  return node;
}

// Ok: there are a node, a role and a mapping.
Status CheckMapping(const RawMapping& mapping) {
  if (mapping.unread != nullptr) {
    return Status(kLockNotAvailable, "could not look up the datanode and its user mapping",
                  std::string("The pooler worker cannot read them now: ") + mapping.unread + ".",
                  "The view pg_locks shows who holds it.");
  }
  if (mapping.server == nullptr) {
    return Status(sqlstate::kUndefinedObject,
                  "datanode is not there for the pooler", {},
                  "A server or user mapping can be used once the transaction that created or "
                  "changed it has been committed.");
  }
  const std::string server = "\"" + std::string(mapping.server->name) + "\"";
  if (!mapping.server->usable) {
    return Status(kWrongObjectType, "server " + server + " is not a datanode",
                  "Its foreign-data wrapper is not " + std::string(kUsableWrappers) + ".");
  }
  if (mapping.role_name == nullptr) {
    return Status(sqlstate::kUndefinedObject,
                  "role with OID " + std::to_string(mapping.role) + " does not exist");
  }
  if (mapping.options == nullptr) {
    return Status(sqlstate::kUndefinedObject,
                  "user mapping not found for \"" + std::string(mapping.role_name) +
                      "\" on datanode " + server,
                  {}, "Create one with CREATE USER MAPPING.");
  }
  return Status::Ok();
}

MappingDefinition BuildMapping(const RawCatalog& catalog, const RawMapping& raw,
                               const std::vector<KnownOption>& known) {
  MappingDefinition mapping;
  mapping.status = CheckMapping(raw);
  if (mapping.status.ok()) {
    MappingSource source;
    source.node_name = raw.server->name;
    source.server_options = BuildOptions(raw.server->options);
    source.mapping_options = BuildOptions(*raw.options);
    source.local_user = raw.role_name;
    source.superuser = raw.superuser;
    source.database = catalog.database;
    source.client_encoding = catalog.encoding;
    mapping = CompleteMapping(known, source);
  }
  mapping.node = raw.server_id;
  mapping.role = raw.role;
  mapping.role_name = raw.role_name != nullptr ? raw.role_name : "";
  mapping.preopen = mapping.status.ok() && !raw.asked;
  return mapping;
}

}  // namespace

std::vector<NodeDefinition> BuildNodes(const RawCatalog& catalog) {
  std::vector<NodeDefinition> nodes;
  for (int i = 0; i < list_length(catalog.servers); i++) {
    const auto* server = static_cast<const RawServer*>(list_nth(catalog.servers, i));
    if (server->usable) {
      nodes.push_back(BuildNode(*server));
    }
  }
  return nodes;
}

std::vector<MappingDefinition> BuildMappings(const RawCatalog& catalog) {
  const std::vector<KnownOption> known = KnownLibpqOptions();
  std::vector<MappingDefinition> mappings;
  for (int i = 0; i < list_length(catalog.mappings); i++) {
    const auto* raw = static_cast<const RawMapping*>(list_nth(catalog.mappings, i));
    // A PUBLIC mapping without a user leads to as many remote users as there are roles.
    if (raw->asked || OidIsValid(raw->role) || FindOption(*raw->options, "user") != nullptr) {
      mappings.push_back(BuildMapping(catalog, *raw, known));
    }
  }
  return mappings;
}

}  // namespace polarx
