// The connection options that the linked libpq knows, by asking libpq; any process, one thread.
#pragma once

#include <vector>

#include "core/conninfo.h"

namespace polarx {

// In libpq's order. Empty only if memory is used up.
std::vector<KnownOption> KnownLibpqOptions();

}  // namespace polarx
