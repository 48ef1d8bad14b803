// The static background worker that starts the pooler workers of all databases.
#pragma once

namespace polarx {

// _PG_init while preloading, after RegistryReserve: registers the launcher, or tells the registry
// why there will be none.
void RegisterLauncher();

}  // namespace polarx
