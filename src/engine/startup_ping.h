// Asks a datanode for a sign of life by beginning a startup; blocks, on a helper thread.
#pragma once

#include <chrono>
#include <string>

#include "core/status.h"
#include "core/time.h"

namespace polarx {

// Ok: something that speaks PostgreSQL's protocol has answered, if only by asking for a password or
// by refusing the role. Otherwise why not; a server that starts up or shuts down counts as that. No
// credentials are sent. The addresses of `host` share the time, as those of a connect do. Ends at
// `deadline`, a name lookup apart; `limit` is behind it, for messages.
Status StartupPing(const std::string& node_name, const std::string& host, const std::string& port,
                   TimePoint deadline, std::chrono::seconds limit);

// What is said when `limit` (pooler_dn_set_timeout) is over.
Status NoAnswerToPing(const std::string& node_name, std::chrono::seconds limit);

}  // namespace polarx
