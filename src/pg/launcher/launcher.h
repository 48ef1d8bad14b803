// The static background worker that starts the pooler workers of all databases.
#pragma once

namespace polarx {

// _PG_init while preloading: registers the launcher, except in a binary upgrade.
void RegisterLauncher();

}  // namespace polarx
