// The cells of parked leases in shared memory: some for each backend, some for each pooler worker.
// In every process, on its main thread. What is written in them is core/parking.h's.
#pragma once

#include "core/parking.h"

#include "pg/prelude.h"

namespace polarx {

// lease_count.cpp reserves the memory that the cells stand in, and sets it up by these.
Size LeaseCellsSize();
void LeaseCellsSetUp(void* memory, bool found);

// Returns the kCellsOfASession cells of the backend, null without shared memory or a place.
LeaseCell* LeaseCellsOf(BackendPlace backend);
// Returns the kCellsOfAWorker cells of the pooler worker at that place; null likewise.
NodeCell* NodeCellsOf(BackendPlace worker);

}  // namespace polarx
