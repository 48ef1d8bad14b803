// Keeps libpq's environment variables (PGSERVICE, PGOPTIONS, PGPASSFILE …) away from our
// connections. Single-threaded moments only: the environment belongs to the whole process.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace polarx {

// Removes them for the rest of the process. The pooler worker calls it before its first thread.
void RemoveLibpqEnvironment();

// Removes them while it lives and puts them back: in backends, where others may rely on them.
// Costs one walk over the environment when none is set.
class LibpqEnvironmentGuard {
 public:
  LibpqEnvironmentGuard();
  ~LibpqEnvironmentGuard();
  LibpqEnvironmentGuard(const LibpqEnvironmentGuard&) = delete;
  LibpqEnvironmentGuard& operator=(const LibpqEnvironmentGuard&) = delete;

 private:
  std::vector<std::pair<std::string, std::string>> saved_;
};

}  // namespace polarx
