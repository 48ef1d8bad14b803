// Nodes and user mappings as values, the way the pg side reads them from the catalog. Plain data.
#pragma once

#include <compare>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "core/status.h"

namespace polarx {

using NodeId = std::uint32_t;  // oid of the foreign server
using RoleId = std::uint32_t;  // oid of a local role; 0: every role (PUBLIC)

// Keyword and value of libpq's connection options, in ascending order of keyword, none empty.
using Options = std::vector<std::pair<std::string, std::string>>;

// A role that a session has asked for on a node.
struct MappingQuestion {
  NodeId node = 0;
  RoleId role = 0;
  auto operator<=>(const MappingQuestion&) const = default;  // NOLINT(modernize-use-nullptr)
};

struct NodeDefinition {
  NodeId id = 0;
  std::string name;
  std::string host;      // as the user wrote it: name, address or socket directory; "" if none
  std::string hostaddr;  // where the option is set: the address that is really connected to
  int port = 5432;
  // Options of the server that stand above the parameters of the same name; -1: not set.
  int max_pool_size = -1;
  int min_pool_size = -1;
  int min_free_size = -1;
  bool member = true;  // of "all nodes": a server of the wrapper polarx_pooler; in no frame

  bool operator==(const NodeDefinition&) const = default;
};

// How one role reaches one node.
struct MappingDefinition {
  NodeId node = 0;
  RoleId role = 0;        // the local role, 0 for a PUBLIC mapping with a user of its own
  std::string role_name;  // for pools.mapped_roles; "public" for role 0
  Status status;          // not ok: why this role cannot use the node; the rest is then unset
  Options options;        // the complete list for libpq, password included: it identifies the pool
  std::string remote_user;
  std::string remote_database;
  bool restricted = true;  // the password rule applies: no superuser, password_required not false
  bool has_password = false;
  bool preopen = false;  // a pool from the worker's start on, without waiting for a session
};

}  // namespace polarx
