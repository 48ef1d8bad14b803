// The foreign-data wrappers whose servers are datanodes, and the extension's own name. In
// every process, on its main thread.
#pragma once

#include <cstring>
#include <initializer_list>

namespace polarx {

inline constexpr const char* kExtensionName = "polarx_pooler";
inline constexpr const char* kWrapperName = "polarx_pooler";

// For messages.
inline constexpr const char* kUsableWrappers = "polarx_pooler, postgres_fdw or dblink_fdw";

inline bool IsUsableWrapper(const char* name) {
  for (const char* usable : {kWrapperName, "postgres_fdw", "dblink_fdw"}) {
    if (std::strcmp(name, usable) == 0) {
      return true;
    }
  }
  return false;
}

}  // namespace polarx
