// What the core has done by others, as three interfaces; all of it is called on the main thread.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "core/protocol.h"
#include "core/slot.h"
#include "core/status.h"
#include "core/ticket.h"

namespace polarx {

struct Node;

// What is to be done to a slot's connection once it is reset.
struct ResetWork {
  protocol::ReleaseKind kind = protocol::ReleaseKind::kClean;
  bool measure = false;             // -> OnMeasured in place of OnReady
  std::vector<std::string> verify;  // parameters whose value its borrower may have changed
};

// The worker threads: what is done to connections. Results come back as events.
class SlotDriver {
 public:
  virtual ~SlotDriver() = default;
  virtual void Connect(Slot* slot) = 0;                // -> OnConnected, OnConnectFailed
  virtual void Warm(Slot* slot) = 0;                   // -> OnReady
  virtual void Reset(Slot* slot, ResetWork work) = 0;  // -> OnReady or OnMeasured, OnBroken
  virtual void Measure(Slot* slot) = 0;                // -> OnMeasured, OnBroken
  virtual void Close(Slot* slot) = 0;                  // -> OnClosed
  virtual bool LooksAlive(const Slot& slot) = 0;       // one non-blocking peek at an idle slot
};

// The sessions: what becomes of their requests and leases.
class LeaseEvents {
 public:
  virtual ~LeaseEvents() = default;
  virtual void Grant(const Ticket& ticket, std::span<Slot* const> slots) = 0;
  virtual void Reject(const Ticket& ticket, const Status& status) = 0;
  virtual void Recall(const Slot& slot) = 0;  // its session is to give it back
  virtual void Taken(const Slot& slot) = 0;   // it was parked, and is not its session's any more
  virtual void LongLease(const Slot& slot, Duration held) = 0;
};

// The process: what it has room for, whom it serves, where it logs.
class Surroundings {
 public:
  virtual ~Surroundings() = default;
  // Not ok: the process has no descriptor left for another connection, to that node for example.
  virtual Status RoomFor(const Node& node) = 0;
  virtual int SessionPid(SessionId session) = 0;  // for messages
  virtual void Log(const std::string& message, const std::string& detail) = 0;
};

}  // namespace polarx
