// What is done for a request whose turn has come: it is served, or counts on a slot that is on its
// way, or has one opened, taken or given up for it. On the main thread.
#pragma once

#include "core/room_maker.h"
#include "core/slot_life.h"
#include "core/stat_line.h"

namespace polarx {

class Supplier {
 public:
  Supplier(Owners* own, SlotLife* life, RoomMaker* room)
      : own_(*own), taker_(own), life_(*life), room_(*room) {}

  // How many of the pool's requests wait for more than what is idle or will be soon: sessions are
  // told. Before the cells of its leases are looked at.
  void TellLack(Pool* pool, TimePoint now);
  // The pool's first turn in a dispatch comes.
  void Begin(Pool* pool, TimePoint now);
  // One slot for the ticket. Returns false if nothing is left for it in the pool, and so nothing
  // for those behind it.
  bool Serve(Ticket* ticket, Pool* pool, TimePoint now);
  // The ticket has all it wants, unless one turns out to be dead. Returns true if it is gone,
  // served or rejected.
  bool TryGrant(Ticket* ticket, TimePoint now);
  // What sessions see of the node: how many wait, and that it is paused.
  static void Publish(Node* node);

  const RequestCounters& counters() const { return counters_; }
  void CountRequest() { ++counters_.client_request_conn_total; }
  void ResetCounters() { counters_ = {}; }

 private:
  // What should be idle before another connection would be open.
  struct SoonIdle {
    int from_reset = 0;  // or from a warm-up or check
    int from_connect = 0;
  };
  SoonIdle CountSoonIdle(Pool* pool, TimePoint now);
  bool Obtain(const Ticket& ticket, Pool* pool, TimePoint now);
  bool TakeParked(Pool* pool, TakeScope scope, TimePoint now);
  bool Evict(const Ticket& ticket, Pool* pool, TimePoint now);
  bool EvictParked(Node* node, TimePoint now);

  Owners& own_;
  LeaseTaker taker_;
  SlotLife& life_;
  RoomMaker& room_;
  RequestCounters counters_;
};

}  // namespace polarx
