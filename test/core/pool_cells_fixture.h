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
  const NodeCell& CellOfNode() { return *book_->directory().FindNode(kNode)->cell; }

  void HoldToPark(SessionId session, RoleId role = kRole) {
    AskWithCells(session, role);
    ConnectAll();
    ASSERT_EQ(held_[session].size(), 1u);
    ASSERT_NE(SlotOf(session)->parking.cell, nullptr);
  }
  parking::Parked Park(SessionId session, parking::State as = parking::State::kParked) {
    LeaseCell* cell = SlotOf(session)->parking.cell;
    cell->sent_ms.store(parking::ClockMs(now_));
    return parking::Park(cell, CellOfNode(), Lease(session), as);
  }
  parking::Retaken Retake(SessionId session) {
    return parking::Retake(SlotOf(session)->parking.cell, CellOfNode(), Lease(session));
  }
  // Each session parks one.
  void ParkFor(SessionId sessions, RoleId role = kRole,
               parking::State as = parking::State::kParked) {
    for (SessionId session = 1; session <= sessions; ++session) {
      HoldToPark(session, role);
    }
    for (SessionId session = 1; session <= sessions; ++session) {
      ASSERT_EQ(Park(session, as), parking::Parked::kYes);
    }
  }
  void Maintain() {
    book_->Maintain(now_);
    EndTurn();
  }
  void MaintainAfter(Duration time) {
    Pass(time);
    Maintain();
  }

  std::array<NodeCell, kCellsOfAWorker> node_cells_;
  std::map<SessionId, std::array<LeaseCell, kCellsOfASession>> session_cells_;
};

}  // namespace polarx
