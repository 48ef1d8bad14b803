// From libpq's words about a failed connect to a Status; pure functions over text.
#pragma once

#include <string>
#include <string_view>

#include "core/status.h"

namespace polarx {

// `text`: PQerrorMessage of a connection with verbosity VERBOSE, so that it carries the server's
// SQLSTATE. Without one: 08001, or 53000 where the system refuses this process a descriptor. The
// message is one line:
// could not connect to datanode "dn1": <reason>
Status ConnectErrorStatus(std::string_view node_name, std::string_view text);

// Has the datanode refused because the connection limit of that role or database is reached? Told
// by the place in the server's source, which is not translated and stands in a verbose text.
bool IsPoolLimit(std::string_view text);

// libpq's text as one line: without its line ends, LOCATION lines, SQLSTATEs and
// advice.
std::string OneLine(std::string_view text);

}  // namespace polarx
