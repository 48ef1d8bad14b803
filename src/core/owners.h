// The owners of the book-keeping's state, each of which alone keeps its invariants true, and whom
// they have things done by. The steps of a turn (slot_life.h, supplier.h, refuser.h, pool_filler.h,
// room_maker.h, lease_taker.h) work on them and keep next to nothing themselves. On the main
// thread.
#pragma once

#include <cstdint>
#include <span>

#include "core/connect_gate.h"
#include "core/dispatcher.h"
#include "core/lease_table.h"
#include "core/outside.h"
#include "core/pool_directory.h"
#include "core/pool_sizer.h"
#include "core/request_queue.h"
#include "core/settings.h"
#include "core/slot_table.h"
#include "core/slot_upkeep.h"

namespace polarx {

struct Owners {
  Owners(SlotDriver* slot_driver, LeaseEvents* lease_events, Surroundings* around,
         const Settings& values, std::uint64_t seed, std::span<NodeCell> cells)
      : driver(slot_driver),
        events(lease_events),
        surroundings(around),
        settings(values),
        directory(values),
        gate(around, seed),
        sizer(values),
        upkeep(values, seed + 1),
        leases(cells) {}

  SlotDriver* const driver;
  LeaseEvents* const events;
  Surroundings* const surroundings;
  Settings settings;
  PoolDirectory directory;
  SlotTable slots;
  ConnectGate gate;
  PoolSizer sizer;
  SlotUpkeep upkeep;
  LeaseTable leases;
  RequestQueue queue;
  Dispatcher dispatcher{&queue};
};

}  // namespace polarx
