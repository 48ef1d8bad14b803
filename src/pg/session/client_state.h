// What the client's own files share: the attachment to the pooler worker. In a backend, on its only
// thread.
#pragma once

#include "core/time.h"
#include "engine/pooler_client.h"
#include "engine/shells.h"

#include "pg/base/errors.h"
#include "pg/session/client.h"

namespace polarx {

// On the heap, so that no frame has to be unwound for it.
struct Attachment {
  PoolerClient channel;
  uint64 number = 0;                 // of this backend's attachments
  uint64 generation = 0;             // of the pooler worker
  LeaseCell* lease_cells = nullptr;  // of this backend
  NodeCell* node_cells = nullptr;    // of the pooler worker
  bool confirmed = false;            // the pooler has answered Attached
  bool cells_freed = false;          // of what stood there before
  WaitEventSet* wait_set = nullptr;  // latch, postmaster death, the channel's socket
  uint32 pending = 0;                // request whose reply has not come, 0: none
  ClientReply reply;                 // taken by ClientAwait, valid until the next one
};

// Attached to the pooler worker of this database afterwards, which is started if need be; waits at
// most pooler.pooler_connect_timeout, interruptibly. Replies to requests that were given up are
// dropped. Not without having looked whether an earlier attachment still stands.
void ClientAttach();
// The same in two steps, so that a request can go out with the attach, which is queued in between;
// without a look: the caller tries again where an earlier attachment is found not to stand. A new
// one is unconfirmed until the second step, which is false where all begins anew.
Attachment* ClientBeginAttach(TimePoint deadline);
bool ClientFinishAttach(TimePoint deadline);
TimePoint ClientAttachDeadline();
// NULL: not attached, or the pooler was found gone.
Attachment* ClientAttachment() noexcept;
// Hangs up.
void ClientHangUp() noexcept;
// Before the first attach: leases are given back when this process exits.
void ClientPrepareExit();
// Once for each attachment, when the pooler has answered a request for leases: what else stands in
// the cells, from a process before this one or from an earlier attachment, unless that lease is in
// use, is nobody's any more. The pooler has heard of that end.
void ClientFreeCells(Attachment* attachment) noexcept;
// In the process's end: all that are parked are left to the pooler.
void ClientDropParked() noexcept;

// Number for a request that wants a reply.
uint32 ClientNextRequest() noexcept;
// Sends the frame, the whole of it within a second. False: the pooler is gone, or memory is used
// up; then it has been hung up on.
bool ClientSend(const protocol::Request& request) noexcept;

enum class Awaited { kReply, kFailed, kGone, kTimeout };

// Waits, interruptibly, for the reply to `request` (0: to the attach). kFailed: *error says why.
// kGone: the pooler has hung up; the attachment is no more.
Awaited ClientAwait(uint32 request, TimePoint deadline, ErrorText* error);

// Writes into the lease's cell how long it has been held; before it is parked or given back there.
void ClientTellHold(const PolarxLease* lease) noexcept;

// How long it takes to get leases from the pooler, as far as is known: as it has been of late, and
// less with each call, so that who waits so long for something else asks from time to time.
Duration ClientHandOutTime() noexcept;

// Between ClientCork(true) and ClientUncork?
bool ClientCorkedSeveral() noexcept;

// The PGconns that this backend keeps.
Shells* ClientShells();
// To be called after they have taken one or given one up: tells the server's own count of
// descriptors.
void ClientCountShells() noexcept;

// Frees what Prepare in client_acquire.cpp made, neither released nor linked.
void LeaseFree(PolarxLease* lease) noexcept;
void LeaseAppend(PolarxLease* const* added, int count) noexcept;
void LeaseUnlink(const PolarxLease* lease) noexcept;

}  // namespace polarx
