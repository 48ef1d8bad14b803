// The list of a backend's leases, and which of them are still its due; on its only thread.
#include <libpq-fe.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <string_view>

#include "core/parking.h"
#include "core/protocol.h"
#include "core/time.h"
#include "engine/server_messages.h"

#include "pg/base/guc.h"
#include "pg/session/attachment.h"
#include "pg/session/leases.h"
#include "pg/session/nodes.h"
#include "pg/shared/lease_count.h"
#include "pg/prelude.h"

namespace polarx {
namespace {

PolarxLease* leases = nullptr;

// Are these whole messages of those kinds that a datanode sends unasked? An error that nobody asked
// for is its last word.
bool WholeUnasked(std::string_view bytes) {
  while (!bytes.empty() && (bytes.front() == 'A' || bytes.front() == 'N' || bytes.front() == 'S')) {
    const size_t size = MessageSize(bytes);
    if (size < kMessageHead || size > bytes.size()) {
      return false;
    }
    bytes.remove_prefix(size);
  }
  return bytes.empty();
}

}  // namespace

PolarxLease* ClientLeases() { return leases; }

void LeaseAppend(PolarxLease* const* added, int count) noexcept {
  PolarxLease** link = &leases;
  while (*link != nullptr) {
    link = &(*link)->next;
  }
  for (int i = 0; i < count; ++i) {
    *link = added[i];
    link = &added[i]->next;
  }
  *link = nullptr;
}

void LeaseUnlink(const PolarxLease* lease) noexcept {
  for (PolarxLease** link = &leases; *link != nullptr; link = &(*link)->next) {
    if (*link == lease) {
      *link = lease->next;
      return;
    }
  }
}

void LeaseFree(PolarxLease* lease) noexcept {
  LeaseForgetApplied(lease);
  if (lease->hold.counted != 0) {
    LeaseCountDrop(lease->node, lease->hold.counted, !ClientLeaseCurrent(lease));
  }
  ReleaseExternalFD();
  pfree(lease);
}

void LeaseForgetApplied(PolarxLease* lease) noexcept {
  if (lease->remote.applied != nullptr) {
    MemoryContextDelete(GetMemoryChunkContext(lease->remote.applied));
    lease->remote.applied = nullptr;
  }
}

void LeaseTellHold(const PolarxLease* lease) noexcept {
  LeaseCell* cell = lease->parking.cell;
  if (cell != nullptr && cell->held_us.load() == 0) {
    const int64 held = (Now() - lease->hold.since).count();
    cell->held_us.store(static_cast<uint32>(std::clamp<int64>(held, 1, UINT32_MAX)));
  }
}

bool ClientLeaseCurrent(const PolarxLease* lease) {
  const Attachment* attachment = ClientAttachment();
  return attachment != nullptr && attachment->number == lease->attachment;
}

bool LeaseUsable(const PolarxLease* lease) noexcept {
  if (lease->connection.broken || PQstatus(lease->conn) != CONNECTION_OK) {
    return false;
  }
  // A notice may stand before the end of file, so what has come is taken in and looked behind.
  constexpr int kMostLooks = 64;
  bool whole = lease->remote.unread_batches == 0;  // no message is cut off before what comes now
  for (int looks = 0; looks < kMostLooks; ++looks) {
    char bytes[8192];
    const ssize_t got =
        ::recv(PQsocket(lease->conn), bytes, sizeof(bytes), MSG_PEEK | MSG_DONTWAIT);
    if (got < 0) {
      return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
    }
    const auto size = static_cast<size_t>(got);
    whole = whole && size < sizeof(bytes);
    // Else libpq would take it for part of the next answer.
    if (size == 0 || (whole && !WholeUnasked({bytes, size})) || PQconsumeInput(lease->conn) != 1) {
      return false;
    }
  }
  return true;
}

void ClientConfirm() {
  // What this backend hears of while it waits is not answered.
  const uint64 epoch = ClientCatalogEpoch();
  const uint32 request = ClientNextRequest();
  const Attachment* attachment = ClientAttachment();
  if (attachment == nullptr || !attachment->confirmed) {
    return;  // then no lease is current, and none will be kept
  }
  if (!ClientSend(protocol::Confirm{.request = request})) {
    return;
  }
  // No statement_timeout ends a wait within COMMIT.
  const TimePoint deadline = Now() + std::chrono::seconds(parameters.pooler_connect_timeout);
  ErrorText error;
  bool answered = false;
  switch (ClientAwait(request, deadline, &error)) {
    case AwaitResult::kReply:
      answered = true;
      break;
    case AwaitResult::kFailed:
      ThrowError(&error);
    case AwaitResult::kTimeout:
      break;
    case AwaitResult::kGone:
      return;
  }
  for (PolarxLease* lease = leases; lease != nullptr; lease = lease->next) {
    lease->hold.recalled =
        lease->hold.recalled || (!answered && lease->hold.catalog_epoch != epoch);
    lease->hold.catalog_epoch = epoch;
  }
}

}  // namespace polarx
