// What the book-keeping orders for its slots, and what comes of it: an order goes out to the slot's
// worker thread, a completion comes in; on the main thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/pool_book.h"
#include "engine/descriptor_budget.h"
#include "engine/orders.h"
#include "engine/ping_desk.h"
#include "engine/worker_fleet.h"

namespace polarx {

using AskId = std::uint64_t;  // of a question to a datanode; never used twice; 0: none

class SlotOrders : public SlotDriver {
 public:
  // All outlive this object; `book` hears of what comes of its orders.
  SlotOrders(PoolBook* book, WorkerFleet* fleet, DescriptorBudget* budget)
      : book_(book), fleet_(fleet), budget_(budget) {}

  // --- SlotDriver ------------------------------------------------------------------------------
  void Connect(Slot* slot) override;
  void Warm(Slot* slot) override;
  void Reset(Slot* slot, ResetWork work) override;
  void Measure(Slot* slot) override;
  void Close(Slot* slot) override;
  // Anything that can be read from an idle connection, its end included, makes it unfit.
  bool LooksAlive(const Slot& slot) override;

  // --- for sessions ----------------------------------------------------------------------------
  // Asks the datanode to cancel what runs on a lent slot.
  // `number` comes back in the CancelThrough.
  void Cancel(const Slot& slot, std::uint32_t number, TimePoint now);
  // One round trip on a slot that PoolBook::TakeForPing has set apart. Its end is in TakeAnswers,
  // once, whatever becomes of the slot.
  void Ping(Slot* slot, PingId ping);
  struct PingAnswer {
    PingId ping = 0;
    Status status;
  };
  std::vector<PingAnswer> TakeAnswers() { return std::exchange(answers_, {}); }
  // One statement on such a slot, whose value is in TakeValues, once; unset: it has none.
  void Ask(Slot* slot, AskId ask, std::string statement);
  struct AskedValue {
    AskId ask = 0;
    std::optional<std::string> value;
  };
  std::vector<AskedValue> TakeValues() { return std::exchange(values_, {}); }

  // --- completions -----------------------------------------------------------------------------
  void On(Connected& done, TimePoint now);
  void On(ConnectFailed& done, TimePoint now);
  void On(RunDone& done, TimePoint now);
  void On(HungUp& done, TimePoint now);
  void On(Closed& done, TimePoint now);

 private:
  // A connection from its order to its end.
  struct Connection {
    NodeId node = 0;
    int thread = 0;
    bool measures = false;  // the run under way ends with a measure
    PingId ping = 0;        // the run under way is that; 0: it is not
    AskId ask = 0;          // likewise
  };
  void RunOn(Slot* slot, RunOrder order);
  void TakeMeasure(Slot* slot, const RunDone& done, TimePoint now);
  void Forget(SlotId slot);

  PoolBook* const book_;
  WorkerFleet* const fleet_;
  DescriptorBudget* const budget_;
  std::unordered_map<SlotId, Connection> connections_;
  std::vector<PingAnswer> answers_;
  std::vector<AskedValue> values_;
  ParameterSets parameter_sets_;
};

}  // namespace polarx
