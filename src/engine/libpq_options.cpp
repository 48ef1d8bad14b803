// libpq is asked for its connection options here; in any process, on any one thread.
#include "engine/libpq_options.h"

#include <libpq-fe.h>

#include <cstring>

namespace polarx {

std::vector<KnownOption> KnownLibpqOptions() {
  std::vector<KnownOption> result;
  // Parsing nothing lists the options without a look at environment, service file or passwd.
  PQconninfoOption* options = PQconninfoParse("", nullptr);
  if (options == nullptr) {
    return result;
  }
  for (const PQconninfoOption* option = options; option->keyword != nullptr; ++option) {
    result.push_back({.keyword = option->keyword,
                      .secret = std::strchr(option->dispchar, '*') != nullptr,
                      .debug = std::strchr(option->dispchar, 'D') != nullptr,
                      .default_value = option->compiled == nullptr ? "" : option->compiled});
  }
  PQconninfoFree(options);
  return result;
}

}  // namespace polarx
