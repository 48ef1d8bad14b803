// A book-keeping whose sessions have cells, in which they park leases or give them back.
#pragma once

#include <array>
#include <map>
#include <vector>

#include "pool_book_fixture.h"

namespace polarx {

class PoolCellsTest : public PoolBookTest {
 protected:
  void Open() { PoolBookTest::Open(node_cells_); }
  // For a lease of kNode.
  void AskWithCells(SessionId session, RoleId role = kRole) {
    const std::vector<protocol::Wanted> wanted = {{kNode, role}};
    book_->Request(session, 1, wanted, std::chrono::seconds(5), false, now_,
                   session_cells_[session].data());
    EndTurn();
  }
  LeaseId Lease(SessionId session) { return held_[session].at(0); }
  Slot* SlotOf(SessionId session) { return book_->FindLease(Lease(session)); }
  const NodeCell& CellOfNode() { return *book_->FindNode(kNode)->cell; }

  std::array<NodeCell, kCellsOfAWorker> node_cells_;
  std::map<SessionId, std::array<LeaseCell, kCellsOfASession>> session_cells_;
};

}  // namespace polarx
