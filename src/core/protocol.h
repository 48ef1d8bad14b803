// Frames between sessions and the pooler worker: their bytes, and nothing else. Pure functions,
// used by the main thread of the pooler worker and by backends.
//
// A frame: int32 length (itself included), int32 code, payload; all integers big-endian, a string
// is an int32 length and its bytes. The first frame is laid out as a startup packet of PostgreSQL.
// No frame carries a secret. Descriptors of a Granted frame travel beside it, in order of leases.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "core/node.h"
#include "core/status.h"
#include "core/time.h"

namespace polarx::protocol {

inline constexpr std::uint32_t kVersion = 1;
inline constexpr std::size_t kHeaderSize = 8;
// Longest frame that a session may send; a longer one is a violation.
inline constexpr std::size_t kMaxRequestSize = 1 << 20;
// Longest frame that the pooler may send (large views).
inline constexpr std::size_t kMaxReplySize = 256u << 20;
// Most nodes in one acquire.
inline constexpr std::size_t kMaxNodes = 4096;

inline constexpr std::uint32_t kNoCell = 0xFFFFFFFF;

using Parameters = std::vector<std::pair<std::string, std::string>>;

enum class ReleaseKind : std::uint8_t {
  kClean = 0,          // idle, outside a transaction, nothing unread
  kInTransaction = 1,  // in sync, in an open or failed transaction: the pooler rolls back
  kClose = 2,          // anything else
  kResetSent = 3,      // clean, and pooler.reset_query has been sent: its answer is unread
};

enum class View : std::uint8_t { kNodes = 0, kPools, kConnections, kSessions, kStats };

// --- requests ---------------------------------------------------------------------------------
struct Attach {
  std::uint32_t version = kVersion;
  std::uint64_t generation = 0;
};
struct Wanted {
  NodeId node = 0;
  RoleId role = 0;
};
struct Acquire {
  std::uint32_t request = 0;           // chosen by the session, comes back in the reply
  std::uint32_t queue_timeout_ms = 0;  // 0: reject at once where every slot is leased
  bool sets = false;                   // the session sets its parameters on what it gets
  std::vector<Wanted> wanted;
};
struct Withdraw {
  std::uint32_t request = 0;
};  // gives up an acquire; its reply still comes
struct Released {
  std::uint64_t lease = 0;
  ReleaseKind kind = ReleaseKind::kClose;
  Parameters changed;  // values that the datanode has reported since the grant
};
struct Release {
  std::vector<Released> leases;
};  // no reply
struct Cancel {
  std::uint64_t lease = 0;
  std::uint32_t number = 0;  // chosen by the session, comes back in the reply
};  // reply: Cancelled, unless the lease is given back or its connection closed before
struct Show {
  std::uint32_t request = 0;
  View view = View::kPools;
};             // reply: Rows
struct Ping {  // reply: Rows
  std::uint32_t request = 0;
  RoleId role = 0;
  std::vector<NodeId> nodes;
};
struct Clean {  // reply: Done
  std::uint32_t request = 0;
  NodeId node = 0;
  std::string remote_user;
};
struct Reload {
  std::uint32_t request = 0;
};              // reply: Done
struct Pause {  // reply: Done
  std::uint32_t request = 0;
  NodeId node = 0;      // 0: all
  bool paused = false;  // else resumed
};
struct ResetStats {
  std::uint32_t request = 0;
};              // reply: Done
struct Check {  // reply: Done, 1 if these are the nodes that the pooler knows, else 0
  std::uint32_t request = 0;
  std::vector<NodeDefinition> nodes;
};
// Has the pooler heard of every change that this session has heard of? Reply: Done; a Recall of
// what the session may no longer hold comes before it.
struct Confirm {
  std::uint32_t request = 0;
};
// A transaction was committed on some nodes and not everywhere: to be counted. No reply.
struct PartlyCommitted {};
// The session has waited for longer than deadlock_timeout for the answers of these leases' nodes;
// none: it waits no more. No reply, but a Deadlocked may come.
struct Awaits {
  std::uint32_t number = 0;  // of the wait, chosen by the session
  BegunAt begun_us = 0;      // its transaction
  std::vector<std::uint64_t> leases;
};
using Request = std::variant<Attach, Acquire, Withdraw, Release, Cancel, Show, Ping, Clean, Reload,
                             Pause, ResetStats, Check, Confirm, PartlyCommitted, Awaits>;

// --- replies ----------------------------------------------------------------------------------
struct Attached {
  std::uint64_t generation = 0;
};
struct GrantedLease {
  std::uint64_t lease = 0;
  std::uint64_t slot = 0;  // the same number: the same connection
  std::uint64_t pool = 0;
  std::int32_t backend_pid = 0;  // of the datanode
  // Where it may be parked: its cell among the session's, and its node's; kNoCell: nowhere.
  std::uint32_t cell = kNoCell;
  std::uint32_t node_cell = kNoCell;
  // Every parameter value that the datanode has reported; the same number: the same values.
  std::uint64_t parameter_set = 0;
  bool told = false;  // the session keeps that set: parameters are left out
  Parameters parameters;
};
struct Granted {
  std::uint32_t request = 0;
  std::vector<GrantedLease> leases;
};
struct Failed {
  std::uint32_t request = 0;
  Status status;
};                                                    // request 0: the attach itself
using Row = std::vector<std::optional<std::string>>;  // values in text form, nullopt: NULL
struct Rows {
  std::uint32_t request = 0;
  std::vector<Row> rows;
};
struct Done {
  std::uint32_t request = 0;
  std::int64_t value = 0;
};
// Unasked: these leases are to be given back, at the end of the session's transaction at the
// latest. Some may have been given back meanwhile.
struct Recall {
  std::vector<std::uint64_t> leases;
};
// The cancels of the lease up to that number are through: they have struck, or never will.
struct Cancelled {
  std::uint64_t lease = 0;
  std::uint32_t number = 0;
};
// Unasked: the wait of that number is in a circle of waits, and the session is to end it.
struct Deadlocked {
  std::uint32_t number = 0;
  std::string detail;  // who waits for whom
};
using Reply = std::variant<Attached, Granted, Failed, Rows, Done, Recall, Cancelled, Deadlocked>;

// A Rows reply whose rows are added one by one, for one that is too long to be made in one go.
class RowsFrame {
 public:
  explicit RowsFrame(std::uint32_t request);
  void Add(const Row& row);
  // Returns the whole frame, as Encode makes it. The last call.
  std::string Finish();

 private:
  std::string bytes_;
  std::uint32_t count_ = 0;
};

// Appends the frame to `out`. The status of a Failed must not be ok.
void Encode(const Request& request, std::string* out);
void Encode(const Reply& reply, std::string* out);

// Length of the frame at the head of `buffer`: 0 while fewer than four bytes have come; an error if
// the length is below kHeaderSize or above `limit`.
Result<std::size_t> FrameLength(std::string_view buffer, std::size_t limit);

// `frame` is one whole frame. An error (08P01) for an unknown code, a truncated or overlong
// payload, a count that cannot be, a NUL byte inside a string, an enum out of range, an SQLSTATE
// that is none; also for an acquire of no node or more than kMaxNodes.
Result<Request> DecodeRequest(std::string_view frame);
Result<Reply> DecodeReply(std::string_view frame);

}  // namespace polarx::protocol
