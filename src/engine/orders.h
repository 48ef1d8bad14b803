// What the main thread tells a worker thread and what it hears back: plain values that cross in
// channels. A slot's number, never a descriptor, says what an order is about.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "core/hold_off.h"
#include "core/node.h"
#include "core/protocol.h"
#include "core/slot.h"
#include "core/status.h"
#include "core/time.h"

namespace polarx {

// --- orders -------------------------------------------------------------------------------------
struct ConnectOrder {
  SlotId slot = 0;
  std::string node_name;  // for messages
  Options options;        // complete
  TimePoint deadline{};
  std::chrono::seconds timeout{};  // behind the deadline, for messages
};

enum class RunKind : std::uint8_t { kReset, kWarm, kPing, kMemory, kAsk };

// Runs statements one after the other; each must succeed and the transaction must be over at the
// end.
struct RunOrder {
  SlotId slot = 0;
  RunKind kind = RunKind::kReset;
  std::vector<std::string> statements;
  // The first of them has been sent by who had the connection before: only its answer is read.
  bool first_sent = false;
  // Parameters whose value libpq's copy may be wrong about: asked for after the statements.
  std::vector<std::string> verify;
  // A last one whose only value goes into the completion; it may fail. "": none.
  std::string measure;
  TimePoint deadline{};
  std::chrono::seconds timeout{};
};

// Asks the datanode to cancel what runs on a lent slot. Orders that follow for the slot wait for
// it. A CancelThrough answers, if the slot is still open then.
struct CancelOrder {
  SlotId slot = 0;
  TimePoint deadline{};
  LeaseId lease = 0;  // both come back in the CancelThrough
  std::uint32_t number = 0;
};

struct CloseOrder {
  SlotId slot = 0;
  bool cancel = false;  // a statement may be running
  TimePoint deadline{};
};

using Order = std::variant<ConnectOrder, RunOrder, CancelOrder, CloseOrder>;

// --- completions --------------------------------------------------------------------------------
struct Connected {
  SlotId slot = 0;
  int socket = -1;  // stays valid until the main thread orders the slot to be closed
  int remote_pid = 0;
  bool password_used = false;
  protocol::Parameters parameters;
};

struct ConnectFailed {
  SlotId slot = 0;
  Status status;
  bool pool_limit = false;  // the limit of that role or database is reached, not the datanode's
  ConnectReach reach = ConnectReach::kNothing;  // over all addresses that were tried
};

struct RunDone {
  SlotId slot = 0;
  RunKind kind = RunKind::kReset;
  Status status;
  std::optional<protocol::Parameters> parameters;  // all, if ok and any has changed
  std::optional<std::string> value;                // of `measure`; unset: it failed, or has none
  bool timed_out = false;                          // not ok because the deadline came
  bool in_transaction = false;                     // not ok, but a ROLLBACK makes it fit
};

// No cancel is under way on the slot any more; lease and number are those of the last one.
struct CancelThrough {
  LeaseId lease = 0;
  std::uint32_t number = 0;
};

struct HungUp {  // the datanode closed an idle or lent connection
  SlotId slot = 0;
  std::string why;
};

struct Closed {
  SlotId slot = 0;
  bool timed_out = false;  // without the datanode's end of file
};

struct Pinged {
  std::uint64_t ping = 0;
  Status status;
  double milliseconds = 0;
};

// The worker thread has run out of memory: the pooler worker is to end and start anew.
struct ThreadFailed {
  std::string why;
};

using Completion = std::variant<ThreadFailed, Connected, ConnectFailed, RunDone, CancelThrough,
                                HungUp, Closed, Pinged>;

}  // namespace polarx
