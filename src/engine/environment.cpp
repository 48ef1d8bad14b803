// The environment variables that libpq would read are taken away here; in single-threaded moments.
#include "engine/environment.h"

#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <string_view>

namespace polarx {
namespace {

// All that begins with PG and an upper-case letter, for every version of libpq adds names; but
// those that the server's own programs read.
bool IsLibpqVariable(std::string_view name) {
  constexpr std::string_view kServers[] = {"PGDATA", "PGLOCALEDIR", "PGCTLTIMEOUT"};
  return name.size() > 2 && name.starts_with("PG") &&
         std::isupper(static_cast<unsigned char>(name[2])) != 0 &&
         std::find(std::begin(kServers), std::end(kServers), name) == std::end(kServers);
}

std::vector<std::pair<std::string, std::string>> LibpqVariables() {
  std::vector<std::pair<std::string, std::string>> found;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    if ((*entry)[0] != 'P') {
      continue;
    }
    const std::string_view text(*entry);
    const std::size_t equals = text.find('=');
    if (equals != text.npos && IsLibpqVariable(text.substr(0, equals))) {
      found.emplace_back(text.substr(0, equals), text.substr(equals + 1));
    }
  }
  return found;
}

void Remove(const std::vector<std::pair<std::string, std::string>>& variables) {
  for (const auto& [name, value] : variables) {
    ::unsetenv(name.c_str());
  }
}

}  // namespace

void RemoveLibpqEnvironment() { Remove(LibpqVariables()); }

LibpqEnvironmentGuard::LibpqEnvironmentGuard() : saved_(LibpqVariables()) { Remove(saved_); }

LibpqEnvironmentGuard::~LibpqEnvironmentGuard() {
  // Backwards: of a name that stood there twice, the first entry counts.
  for (auto variable = saved_.rbegin(); variable != saved_.rend(); ++variable) {
    ::setenv(variable->first.c_str(), variable->second.c_str(), 1);
  }
}

}  // namespace polarx
