// From the options of a foreign server and a user mapping to the complete option list of one
// datanode connection; pure functions, used by the validator in backends and by the catalog reader
// of the pooler worker.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/node.h"
#include "core/status.h"

namespace polarx {

// One connection option of libpq, as libpq itself tells (engine/libpq_options.h lists them).
struct KnownOption {
  std::string keyword;
  bool secret = false;             // libpq shows it as '*'
  bool debug = false;              // libpq marks it 'D'
  std::string default_value = "";  // compiled into libpq, so of no environment; "" if none
};

enum class OptionContext { kServer, kUserMapping };

// May the option stand there? Not ok: HV00D with the valid names, or the nearest one, as hint.
// Accepted are libpq's options but debug ones, client_encoding, fallback_application_name, service;
// user, passfile, sslcert, sslkey, secrets (password, sslpassword) and password_required (a bool)
// only in mappings, all others only in servers; max_pool_size (1..65535), min_pool_size,
// min_free_size (0..65535) in servers. 22023, with the valid values as detail, for a host or
// hostaddr with a comma, a number out of range, no bool, an unknown sslmode or gssencmode.
Status ValidateOption(const std::vector<KnownOption>& known, OptionContext context,
                      std::string_view name, std::string_view value);

// Does this sslmode demand what a lent connection cannot carry (require, verify-ca, verify-full)?
bool DemandsTls(std::string_view sslmode);

// What the node and the mapping ask for, before completion.
struct MappingSource {
  std::string node_name;
  Options server_options;  // as in the catalog, unknown keywords (of other wrappers) included
  Options mapping_options;
  std::string local_user;       // name of the role that the connection is for
  bool superuser = false;       // that role
  std::string database;         // the coordinator's
  std::string client_encoding;  // of the coordinator's database, as libpq names it
};

// Fills options, remote_user, remote_database, restricted, has_password and status of the result
// (node, role, role_name, preopen are the caller's). Every option in `known` that would otherwise
// be taken from the environment or a file gets an explicit value where libpq has a neutral one:
// sslmode and gssencmode disable, passfile a path that cannot exist, libpq's own defaults;
// keepalives 1/30/10/3 and tcp_user_timeout 30000 unless set, application_name
// polarx_pooler/<database> unless set. `options` gets client_connection_check_interval=2000 (ms; a
// statement whose holder is gone ends by itself) in front of the user's own, and behind them what
// makes text exchange exact and keeps the connection: DateStyle=ISO, IntervalStyle=postgres,
// extra_float_digits=3, idle_in_transaction_session_timeout=0, idle_session_timeout=0.
// (transaction_timeout, which only newer datanodes know, is the worker thread's to add.)
//
// Options that ValidateOption would not accept where they stand have no effect, nor have empty
// ones; but a bad value of an accepted one is refused (22023), likewise a `service` (0A000). What
// needs TLS or GSS encryption: 0A000. Restricted and no password: 2F003.
MappingDefinition CompleteMapping(const std::vector<KnownOption>& known,
                                  const MappingSource& source);

}  // namespace polarx
