// The library is set up here when a process loads it; in the postmaster while preloading, else in
// the backend that first needs it.
#include "pg/session/client.h"
#include "pg/base/guc.h"
#include "pg/base/version.h"
#include "pg/launcher/launcher.h"
#include "pg/shared/lease_count.h"
#include "pg/shared/registry.h"
#include "pg/sql/utility_hook.h"

#include "pg/prelude.h"

extern "C" {
PG_MODULE_MAGIC;

PGDLLEXPORT void _PG_init(void);
}

void _PG_init(void) {
  polarx::DefineParameters();
  // Later than preloading there is neither shared memory to be had nor a static worker: the library
  // then only serves what needs none of them.
  if (process_shared_preload_libraries_in_progress) {
    polarx::RegistryReserve();
    polarx::LeaseCountReserve();
    polarx::RegisterLauncher();
    polarx::InstallUtilityHook();
    polarx::ClientMakeSpares();
    ereport(LOG, (errmsg("polarx_pooler %s: port %d, %d worker threads in each pooler worker",
                         polarx::kVersionText, polarx::parameters.port,
                         polarx::parameters.pooler_scale_factor)));
  }
}
