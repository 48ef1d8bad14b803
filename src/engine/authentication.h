// What a datanode asks of who connects, looked at before libpq does it; pure functions over bytes.
#pragma once

#include <string>
#include <string_view>

#include "core/status.h"

namespace polarx {

// `bytes`: the begin of what the datanode has sent and libpq has not read yet. Not ok: a request
// that libpq would serve by blocking its thread, on a key server or a processor. Then why not.
Status CheckAuthentication(const std::string& node_name, std::string_view bytes);

}  // namespace polarx
