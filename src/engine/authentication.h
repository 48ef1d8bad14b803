// What a datanode asks of who connects, looked at before libpq does it; pure functions over bytes.
#pragma once

#include <string>
#include <string_view>

#include "core/status.h"

namespace polarx {

// `bytes`: the first that has come on a new connection. Does a server begin to answer a startup?
// Other services begin with something else, and so does a server that cannot fork: it says why in
// words of version 2 of the protocol.
bool BeginsAnswer(std::string_view bytes);

// `bytes`: the begin of what the datanode has sent and libpq has not read yet. Not ok: a request
// that libpq would serve by blocking its thread, on a key server or a processor. Then why not.
Status CheckAuthentication(const std::string& node_name, std::string_view bytes);

}  // namespace polarx
