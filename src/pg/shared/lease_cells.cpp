// The cells of parked leases in shared memory. Every process, its main thread.
#include "pg/shared/lease_cells.h"

#include <memory>
#include <new>

#include "pg/prelude.h"

namespace polarx {
namespace {

LeaseCell* lease_cells = nullptr;
NodeCell* node_cells = nullptr;

Size LeaseCells() { return mul_size(kCellsOfASession, static_cast<Size>(MaxBackends)); }
Size NodeCells() { return mul_size(kCellsOfAWorker, static_cast<Size>(MaxBackends)); }

bool IsBackend(BackendPlace place) {
  return lease_cells != nullptr && place >= 0 && place < MaxBackends;
}

}  // namespace

// Other processes see the words, so no lock of this one's may be behind them.
static_assert(decltype(LeaseCell::word)::is_always_lock_free);
static_assert(decltype(NodeCell::waiting)::is_always_lock_free);

Size LeaseCellsSize() {
  return add_size(add_size(mul_size(sizeof(LeaseCell), LeaseCells()), alignof(NodeCell)),
                  mul_size(sizeof(NodeCell), NodeCells()));
}

void LeaseCellsSetUp(void* memory, bool found) {
  lease_cells = static_cast<LeaseCell*>(memory);
  void* place = lease_cells + LeaseCells();
  size_t room = mul_size(sizeof(NodeCell), NodeCells()) + alignof(NodeCell);
  node_cells = static_cast<NodeCell*>(std::align(alignof(NodeCell), sizeof(NodeCell), place, room));
  if (!found) {
    for (Size i = 0; i < LeaseCells(); i++) {
      new (&lease_cells[i]) LeaseCell;
    }
    for (Size i = 0; i < NodeCells(); i++) {
      new (&node_cells[i]) NodeCell;
    }
  }
}

LeaseCell* LeaseCellsOf(BackendPlace backend) {
  return IsBackend(backend) ? &lease_cells[backend * kCellsOfASession] : nullptr;
}

NodeCell* NodeCellsOf(BackendPlace worker) {
  return IsBackend(worker) ? &node_cells[worker * kCellsOfAWorker] : nullptr;
}

}  // namespace polarx
