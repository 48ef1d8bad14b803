// The pools are brought to their sizes: what is missing is opened and warmed up at the end of a
// turn, what is too much is closed there and at maintenance. On the main thread.
#pragma once

#include <vector>

#include "core/room_maker.h"
#include "core/slot_life.h"

namespace polarx {

class PoolFiller {
 public:
  PoolFiller(Owners* own, SlotLife* life, const RoomMaker* room)
      : own_(*own), taker_(own), life_(*life), room_(*room) {}

  // May a slot be opened for the minima of one of the pools?
  bool LacksAny(const std::vector<Pool*>& pools, TimePoint now) const;
  // What sessions keep and do not use may be enough.
  void TakeRested(const std::vector<Pool*>& pools, TimePoint now);
  // Opens round-robin, one slot a pool and round, so that no pool's minimum waits for another's.
  void Fill(const std::vector<Pool*>& pools, TimePoint now);
  // Whoever needs a new connection has it cold.
  void WarmUp(Pool* pool, TimePoint now);
  void CloseDispensable(Pool* pool, TimePoint now);
  // The pools wait for what their nodes cannot give now; those that waited before and whose turn
  // has come are marked.
  void PassTurns(const std::vector<Pool*>& pools, TimePoint now);

  void Maintain(TimePoint now);
  // Above a lowered limit idle slots go, unused or not, without waiting for a round.
  void CloseAboveLimits(TimePoint now);

 private:
  bool MustFill(const Pool& pool, TimePoint now) const;
  bool CanOpen(const Pool& pool, TimePoint now) const;
  bool WaitsToOpen(const Pool& pool, TimePoint now) const;
  void MaintainParked(Pool* pool, TimePoint now);

  Owners& own_;
  LeaseTaker taker_;
  SlotLife& life_;
  const RoomMaker& room_;
};

}  // namespace polarx
