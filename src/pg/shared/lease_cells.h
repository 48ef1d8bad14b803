// The cells of parked leases in shared memory: some for each backend, some for each pooler worker.
// Every process, its main thread.
#pragma once

#include "core/parking.h"

#include "pg/prelude.h"

namespace polarx {

// For lease_count.cpp, which reserves and sets up the memory that they stand in.
Size LeaseCellsSize();
void LeaseCellsSetUp(void* memory, bool found);

// kCellsOfASession cells of the backend; null: there are none.
LeaseCell* LeaseCellsOf(BackendPlace backend);
// kCellsOfAWorker cells of the pooler worker that is that backend; null: there are none.
NodeCell* NodeCellsOf(BackendPlace worker);

}  // namespace polarx
