// The attachment to the pooler worker and its socket, for the files of session/. In a backend, on
// its only thread.
#pragma once

#include "core/protocol.h"
#include "core/time.h"
#include "engine/pooler_client.h"

#include "pg/base/errors.h"
#include "pg/prelude.h"

namespace polarx {

struct LeaseCell;
struct NodeCell;

// It stands on the heap, so that no frame has to be unwound for it.
struct Attachment {
  PoolerClient channel;
  // This backend counts its attachments; the pooler worker has a generation.
  uint64 number = 0;
  uint64 generation = 0;
  // The cells of this backend's leases, and those of the pooler worker's nodes.
  LeaseCell* lease_cells = nullptr;
  NodeCell* node_cells = nullptr;
  // The pooler has answered Attached.
  bool confirmed = false;
  // ClientFreeCells has been called.
  bool cells_freed = false;
  // Latch, postmaster death, the channel's socket.
  WaitEventSet* wait_set = nullptr;
  // The request whose reply has not come; 0: there is none.
  uint32 pending = 0;
  // The reply that ClientAwait has received, valid until the next one.
  ClientReply reply;
  // The last one that has come.
  protocol::Deadlocked deadlock;
};

// --- attachment.cpp ------------------------------------------------------------------------------

// Attaches to the pooler worker of this database, which is started if need be, unless an earlier
// attachment still stands, as a look at its socket tells. Waits at most
// pooler.pooler_connect_timeout, interruptibly; raises 57P03 with the reason. Replies to requests
// that were given up are dropped.
void ClientAttach();
// The same in two steps, so that a request can go out with the attach: it is queued in between.
// There is no look: the caller tries again where an earlier attachment is found not to stand. A new
// attachment is unconfirmed until the second step, which returns false where all begins anew.
Attachment* ClientBeginAttach(TimePoint deadline);
bool ClientFinishAttach(TimePoint deadline);
TimePoint ClientAttachDeadline();
// Returns null if this backend is not attached, or the pooler was found gone.
Attachment* ClientAttachment() noexcept;
void ClientHangUp() noexcept;
// Once for each attachment, when the pooler has answered a request for leases: what else stands in
// the cells, from a process before this one or from an earlier attachment, unless that lease is in
// use, is nobody's any more. The pooler has heard of that end.
void ClientFreeCells(Attachment* attachment) noexcept;

// --- socket.cpp ----------------------------------------------------------------------------------

// Returns a number for a request that wants a reply.
uint32 ClientNextRequest() noexcept;
// Sends the frame, the whole of it within a second, or queues it while corked. Returns false if the
// pooler is gone or memory is used up; then this backend has hung up.
bool ClientSend(const protocol::Request& request) noexcept;

enum class AwaitResult {
  kReply,    // it is in the attachment
  kFailed,   // *error says why
  kGone,     // the pooler has hung up, the attachment is no more
  kTimeout,  // `deadline` has come
};
// Waits, interruptibly, for the reply to `request` (0: to the attach).
AwaitResult ClientAwait(uint32 request, TimePoint deadline, ErrorText* error);

// Returns whether this is between ClientCork(true) and ClientUncork.
bool ClientCorkedSeveral() noexcept;

// --- exit.cpp ------------------------------------------------------------------------------------

// Before the first attach: leases are given back when this process exits.
void ClientPrepareExit();

}  // namespace polarx
