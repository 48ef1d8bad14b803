// A backend acquires leases: asks the pooler worker, adopts the descriptors that it grants; on its
// only thread.
#include <libpq-fe.h>

#include <algorithm>
#include <chrono>
#include <utility>
#include <variant>

#include "core/parking.h"
#include "core/protocol.h"
#include "core/time.h"
#include "engine/pooler_client.h"
#include "engine/traffic.h"

#include "pg/session/attachment.h"
#include "pg/session/leases.h"
#include "pg/session/park.h"
#include "pg/session/shells.h"
#include "pg/base/guc.h"
#include "pg/shared/lease_count.h"
#include "pg/prelude.h"

namespace polarx {
namespace {

// How often an acquire follows a pooler worker that ends while the request waits.
constexpr int kMostAttempts = 3;

int HeldLeases() {
  int count = 0;
  for (const PolarxLease* lease = ClientLeases(); lease != nullptr; lease = lease->next) {
    ++count;
  }
  return count;
}

// One more stays free: the wait for a statement's answer takes it for a moment.
bool TakeOneOfTwo() noexcept {
  if (!AcquireExternalFD()) {
    return false;
  }
  const bool one_more = AcquireExternalFD();
  ReleaseExternalFD();
  return one_more;
}

// Takes a descriptor for a lease. PGconns that are merely kept make room.
bool TakeDescriptor() noexcept {
  if (TakeOneOfTwo()) {
    return true;
  }
  ClientShells()->Clear();
  ClientCountShells();
  return TakeOneOfTwo();
}

// Everything that may run out is had before the pooler is asked.
void Prepare(const NodeRef* nodes, int count, PolarxLease** prepared) {
  for (int i = 0; i < count; ++i) {
    auto* lease = static_cast<PolarxLease*>(MemoryContextAllocExtended(
        TopMemoryContext, sizeof(PolarxLease), MCXT_ALLOC_NO_OOM | MCXT_ALLOC_ZERO));
    const bool out_of_memory = lease == nullptr;
    if (out_of_memory || !TakeDescriptor()) {
      if (!out_of_memory) {
        pfree(lease);
      }
      while (i > 0) {
        LeaseFree(prepared[--i]);
      }
      if (out_of_memory) {
        ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
      }
      ereport(ERROR,
              (errcode(ERRCODE_INSUFFICIENT_RESOURCES),
               errmsg("out of file descriptors for connections to datanodes"),
               errdetail("This session holds %d leases and asks for %d more; they may take a third "
                         "of max_files_per_process (%d).",
                         HeldLeases(), count, max_files_per_process),
               errhint("Increase max_files_per_process.")));
    }
    lease->node = nodes[i].id;
    lease->role = GetUserId();
    strlcpy(lease->node_name, nodes[i].name, NAMEDATALEN);
    lease->hold.catalog_epoch = ClientCatalogEpoch();
    lease->connection.plain = true;
    prepared[i] = lease;
  }
}

void FreeAll(PolarxLease** prepared, int count) noexcept {
  for (int i = 0; i < count; ++i) {
    LeaseFree(prepared[i]);
  }
}

bool SendAcquire(uint32 request, bool sets, PolarxLease* const* wanted, int count) noexcept {
  try {
    protocol::Acquire acquire;
    acquire.request = request;
    acquire.queue_timeout_ms = static_cast<std::uint32_t>(parameters.queue_timeout);
    acquire.sets = sets;
    for (int i = 0; i < count; ++i) {
      acquire.wanted.push_back({.node = wanted[i]->node, .role = wanted[i]->role});
    }
    return ClientSend(acquire);
  } catch (...) {
    ClientHangUp();
    return false;
  }
}

// The pooler forgets the request that an error has ended the wait for.
void Withdraw() noexcept {
  Attachment* attachment = ClientAttachment();
  if (attachment != nullptr && attachment->pending != 0) {
    (void)ClientSend(protocol::Withdraw{.request = std::exchange(attachment->pending, 0)});
  }
}

// Before they are asked for: a worker that ends while it grants them leaves them to its successor.
void Count(PolarxLease* const* wanted, int count, uint64 generation) noexcept {
  for (int i = 0; i < count; ++i) {
    PolarxLease* lease = wanted[i];
    if (lease->hold.counted != 0) {
      LeaseCountDrop(lease->node, lease->hold.counted, true);
    }
    lease->hold.counted = LeaseCountAdd(lease->node, generation) ? generation : 0;
  }
}

// How long it took of late; at first, as in a quiet moment.
Duration hand_out_time = std::chrono::microseconds(100);

// One that had to wait for a connection to be opened says little about the next.
void NoteHandOut(Duration took) noexcept {
  hand_out_time = (3 * hand_out_time + std::min(took, 4 * hand_out_time)) / 4;
}

// The reply is a Granted afterwards, in the attachment. The first one goes out with the attach.
void RequestLeases(bool sets, PolarxLease* const* wanted, int count) {
  TimePoint deadline = ClientAttachDeadline();
  ErrorText error;
  for (int attempt = 0; attempt < kMostAttempts;) {
    const Attachment* attachment = ClientBeginAttach(deadline);
    const bool attached = attachment->confirmed;
    Count(wanted, count, attachment->generation);
    const uint32 request = ClientNextRequest();
    const TimePoint begin = Now();
    const bool sent = SendAcquire(request, sets, wanted, count);
    if (!attached && !ClientFinishAttach(deadline)) {
      continue;
    }
    switch (sent ? ClientAwait(request, kNever, &error) : AwaitResult::kGone) {
      case AwaitResult::kReply:
        ClientFreeCells(ClientAttachment());
        if (attached) {
          NoteHandOut(Now() - begin);
        }
        return;
      case AwaitResult::kFailed:
        ThrowError(&error);
      case AwaitResult::kGone:
      case AwaitResult::kTimeout:
        ++attempt;
        deadline = ClientAttachDeadline();
        break;
    }
  }
  ereport(ERROR, (errcode(ERRCODE_CANNOT_CONNECT_NOW),
                  errmsg("pooler closed the connection while the request waited")));
}

void TakeGrant(const protocol::GrantedLease& granted, const Attachment& attachment,
               PolarxLease* lease) {
  lease->id = granted.lease;
  lease->hold.since = Now();
  lease->attachment = attachment.number;
  if (granted.cell < kCellsOfASession && granted.node_cell < kCellsOfAWorker &&
      attachment.lease_cells != nullptr && attachment.node_cells != nullptr) {
    lease->parking.cell = &attachment.lease_cells[granted.cell];
    lease->parking.node_cell = &attachment.node_cells[granted.node_cell];
    lease->parking.cell->borrowed_ms.store(0);
  }
}

bool AdoptOne(const protocol::GrantedLease& granted, UniqueFd fd, SharedParameters values,
              PolarxLease* lease, ErrorText* error) {
  Lent lent{.attachment = lease->attachment,
            .slot = granted.slot,
            .pool = granted.pool,
            .backend_pid = granted.backend_pid,
            .parameters = std::move(values)};
  const std::chrono::seconds limit(parameters.pooler_connect_timeout);
  const Result<Shell*> shell = ClientShells()->Adopt(std::move(fd), std::move(lent), limit);
  ClientCountShells();
  if (!shell.ok()) {
    KeepError(shell.status(), error);
    return false;
  }
  lease->shell = shell.value();
  lease->conn = lease->shell->conn;
  lease->connection.moved_before = BytesMoved(PQsocket(lease->conn)).value_or(0);
  lease->backend_pid = granted.backend_pid;
  return true;
}

// Puts every granted descriptor under a PGconn. Returns false if all are given back and freed;
// then *error says why.
bool AdoptAll(PolarxLease* const* lent, int count, ErrorText* error) noexcept {
  bool adopted = false;
  try {
    Attachment* attachment = ClientAttachment();
    ClientReply reply = std::exchange(attachment->reply, {});
    auto* granted = std::get_if<protocol::Granted>(&reply.reply);
    if (granted == nullptr || granted->leases.size() != static_cast<size_t>(count) ||
        reply.fds.size() != static_cast<size_t>(count)) {
      ClientHangUp();
      KeepPlainError(sqlstate::kProtocolViolation, "pooler granted what was not asked for", error);
    } else {
      for (int i = 0; i < count; ++i) {
        TakeGrant(granted->leases[i], *attachment, lent[i]);
      }
      adopted = true;
      for (int i = 0; adopted && i < count; ++i) {
        adopted = AdoptOne(granted->leases[i], std::move(reply.fds[i]),
                           std::move(reply.parameters[i]), lent[i], error);
      }
    }
  } catch (...) {
    adopted = false;
    KeepOutOfMemory(error);
  }
  for (int i = 0; !adopted && i < count; ++i) {
    ClientReturn(lent[i]);
  }
  return adopted;
}

// Acquires all of them from the pooler.
void Acquire(const NodeRef* nodes, int count, bool sets, PolarxLease** acquired) {
  Prepare(nodes, count, acquired);
  PG_TRY();
  { RequestLeases(sets, acquired, count); }
  PG_CATCH();
  {
    Withdraw();
    FreeAll(acquired, count);
    PG_RE_THROW();
  }
  PG_END_TRY();
  ErrorText error;
  if (!AdoptAll(acquired, count, &error)) {
    ThrowError(&error);
  }
  LeaseAppend(acquired, count);
}

// Where some are parked, asks for the others alone. Meanwhile the pooler may take what is parked:
// then nothing has been acquired, and this returns false.
bool AcquireMissing(const NodeRef* nodes, int count, bool sets, PolarxLease** acquired) {
  auto* sorted = static_cast<NodeRef*>(palloc(sizeof(NodeRef) * count));
  int parked = 0;
  int missing = 0;
  for (int i = 0; i < count; ++i) {
    sorted[ClientKeepsParked(nodes[i].id) ? parked++ : count - ++missing] = nodes[i];
  }
  if (parked == 0 || missing == 0) {
    return false;
  }
  auto** leases = static_cast<PolarxLease**>(palloc(sizeof(PolarxLease*) * count));
  ClientMakeRoom(sorted + parked, missing, sorted, parked);
  Acquire(sorted + parked, missing, sets, leases + parked);
  if (!ClientRetake(sorted, parked, leases)) {
    while (missing > 0) {
      ClientReturn(leases[count - missing--]);
    }
    return false;
  }
  for (int i = 0, next = 0, last = count; i < count; ++i) {
    acquired[i] = next < parked && sorted[next].id == nodes[i].id ? leases[next++] : leases[--last];
  }
  return true;
}

}  // namespace

Duration ClientHandOutTime() noexcept {
  constexpr Duration::rep kForgotten = 256;  // with each call one part of so many
  hand_out_time -= hand_out_time / kForgotten;
  return hand_out_time;
}

void ClientCheckCount(int count) {
  if (count < 1 || count > static_cast<int>(protocol::kMaxNodes)) {
    ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
                    errmsg("number of nodes in one request must be between 1 and %d",
                           static_cast<int>(protocol::kMaxNodes)),
                    errdetail("It is %d.", count)));
  }
}

void ClientAcquire(const NodeRef* nodes, int count, bool sets, PolarxLease** acquired) {
  ClientCheckCount(count);
  if (ClientRetake(nodes, count, acquired) ||
      (count > 1 && AcquireMissing(nodes, count, sets, acquired))) {
    return;
  }
  ClientMakeRoom(nodes, count, nullptr, 0);
  Acquire(nodes, count, sets, acquired);
}

}  // namespace polarx
