// How the pooler pings a node: over an idle slot, or by the start of a connection on a helper
// thread; on the main thread.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "core/pool_book.h"
#include "engine/ping_desk.h"
#include "engine/session_server.h"
#include "engine/slot_orders.h"
#include "engine/worker_fleet.h"

namespace polarx {

class PoolerPings : public PingDriver {
 public:
  // All outlive this object.
  PoolerPings(PoolBook* book, SlotOrders* slots, WorkerFleet* fleet, SessionServer* sessions)
      : book_(book), slots_(slots), fleet_(fleet), sessions_(sessions) {}

  bool PingBySlot(PingId ping, NodeId node, RoleId role, TimePoint now) override;
  bool PingByStartup(PingId ping, NodeId node, TimePoint deadline,
                     std::chrono::seconds limit) override;
  void OnPinged(NodeId node, const Status& status, double milliseconds, TimePoint now) override;
  std::string NameOf(NodeId node) override;
  void OnAllPinged(SessionId session, std::uint32_t request,
                   std::vector<protocol::Row> rows) override;

 private:
  PoolBook* const book_;
  SlotOrders* const slots_;
  WorkerFleet* const fleet_;
  SessionServer* const sessions_;
};

}  // namespace polarx
