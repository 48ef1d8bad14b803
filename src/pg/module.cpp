// The library is set up here when a process loads it: in the postmaster while preloading, else in
// the backend that first needs it. Here its parts hear of the ends of transactions, in that order.
#include "pg/base/guc.h"
#include "pg/base/version.h"
#include "pg/launcher/launcher.h"
#include "pg/remote/parameters.h"
#include "pg/remote/transaction.h"
#include "pg/session/shells.h"
#include "pg/shared/lease_count.h"
#include "pg/shared/registry.h"
#include "pg/sql/c_interface.h"
#include "pg/sql/utility_hook.h"
#include "pg/sql/worker_functions.h"

#include "pg/prelude.h"

extern "C" {
POLARX_MODULE_MAGIC(polarx::kVersionText);

PGDLLEXPORT void _PG_init(void);
}

namespace polarx {
namespace {

// The parameters first, for those of the ended transaction are not to be set any more; then the
// leases, which may go back to the pooler; the registry last, which other processes wait for.
void AfterEnd(XactEvent event) noexcept {
  const bool committed = event != XACT_EVENT_ABORT;
  SessionParametersAfterEnd(committed);
  TransactionAfterEnd(committed);
  BorrowersAfterEnd();
  UtilityHookAfterEnd();
  WorkerStartAfterEnd(event == XACT_EVENT_COMMIT);
}

// Errors are raised only before a commit.
extern "C" void AtTransactionEvent(XactEvent event, void* /*arg*/) {
  switch (event) {
    case XACT_EVENT_PRE_COMMIT:
      TransactionBeforeCommit();
      break;
    case XACT_EVENT_PRE_PREPARE:
      TransactionBeforePrepare();
      break;
    case XACT_EVENT_COMMIT:
    case XACT_EVENT_PREPARE:
    case XACT_EVENT_ABORT:
      AfterEnd(event);
      break;
    case XACT_EVENT_PARALLEL_PRE_COMMIT:
    case XACT_EVENT_PARALLEL_COMMIT:
    case XACT_EVENT_PARALLEL_ABORT:
      break;
  }
}

extern "C" void AtSubtransactionEvent(SubXactEvent event, SubTransactionId /*id*/,
                                      SubTransactionId /*parent*/, void* /*arg*/) {
  if (event == SUBXACT_EVENT_COMMIT_SUB || event == SUBXACT_EVENT_ABORT_SUB) {
    const int level = GetCurrentTransactionNestLevel();
    const bool committed = event == SUBXACT_EVENT_COMMIT_SUB;
    SessionParametersAfterLevel(level, committed);
    TransactionAfterLevel(level, committed);
    BorrowersAfterLevel(level, committed);
    UtilityHookAfterLevel(level, committed);
  }
}

}  // namespace
}  // namespace polarx

void _PG_init(void) {
  polarx::DefineParameters();
  // Later than preloading there is neither shared memory to be had nor a static worker: the library
  // then only serves what needs none of them.
  if (process_shared_preload_libraries_in_progress) {
    polarx::RegistryReserve();
    polarx::LeaseCountReserve();
    polarx::RegisterLauncher();
    polarx::InstallUtilityHook();
    RegisterXactCallback(polarx::AtTransactionEvent, nullptr);
    RegisterSubXactCallback(polarx::AtSubtransactionEvent, nullptr);
    polarx::ClientMakeSpares();
    ereport(LOG, (errmsg("polarx_pooler %s: port %d, %d worker threads a database",
                         polarx::kVersionText, polarx::parameters.port,
                         polarx::parameters.pooler_scale_factor)));
  }
}
