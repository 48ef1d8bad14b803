// The leases of a backend: their list, cancel, giving back, and what becomes of them when the
// backend exits; on its only thread.
#include <libpq-fe.h>
#include <sys/socket.h>

#include <cerrno>
#include <utility>

#include "polarx_pooler/core/protocol.h"
#include "polarx_pooler/engine/adopt.h"

#include "client_state.h"
#include "prelude.h"

namespace polarx {
namespace {

using protocol::Parameters;
using protocol::ReleaseKind;

PolarxLease* leases = nullptr;

void Unlink(PolarxLease* lease) noexcept {
  for (PolarxLease** link = &leases; *link != nullptr; link = &(*link)->next) {
    if (*link == lease) {
      *link = lease->next;
      return;
    }
  }
}

void IgnoreNotice(void* /*arg*/, const PGresult* /*result*/) {}

// Nothing unread in libpq or the kernel; what may come at any time has been consumed.
bool NothingUnread(PGconn* conn) noexcept {
  for (int looks = 0; looks < 2; ++looks) {
    while (PGnotify* notify = PQnotifies(conn)) {  // parses what libpq has buffered
      PQfreemem(notify);
    }
    char byte;
    const ssize_t got = ::recv(PQsocket(conn), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    if (got < 0) {
      return errno == EAGAIN || errno == EWOULDBLOCK;
    }
    if (got == 0 || PQconsumeInput(conn) != 1) {
      return false;
    }
  }
  return false;
}

// A borrower that leaves pipeline mode on may have omitted its last sync, which libpq does not
// tell; the session's own statements never do.
bool LeavePipeline(const PolarxLease* lease) noexcept {
  return PQpipelineStatus(lease->conn) == PQ_PIPELINE_OFF ||
         (!lease->borrowed && PQexitPipelineMode(lease->conn) == 1);
}

// kClose if that is asked for, else what the connection's state shows.
ReleaseKind CorrectedKind(PolarxLease* lease, ReleaseKind kind) noexcept {
  PGconn* conn = lease->conn;
  PQsetNoticeReceiver(conn, IgnoreNotice, nullptr);
  if (kind == ReleaseKind::kClose || conn == nullptr || lease->broken ||
      PQstatus(conn) != CONNECTION_OK || !LeavePipeline(lease) || PQisBusy(conn)) {
    return ReleaseKind::kClose;
  }
  if (PQtransactionStatus(conn) == PQTRANS_ACTIVE) {
    // The last result may have been read, but not the NULL after it.
    PGresult* result = PQgetResult(conn);
    PQclear(result);
    if (result != nullptr) {
      return ReleaseKind::kClose;
    }
  }
  if (!NothingUnread(conn)) {
    return ReleaseKind::kClose;
  }
  switch (PQtransactionStatus(conn)) {
    case PQTRANS_IDLE:
      return ReleaseKind::kClean;
    case PQTRANS_INTRANS:
    case PQTRANS_INERROR:
      return ReleaseKind::kInTransaction;
    default:
      return ReleaseKind::kClose;
  }
}

bool KeepChanges(const PolarxLease* lease, Parameters* changed) noexcept {
  try {
    *changed = ChangedParameters(lease->conn, *static_cast<Parameters*>(lease->lent_parameters));
    return true;
  } catch (...) {
    return false;
  }
}

void SendRelease(uint64 id, ReleaseKind kind, Parameters changed) noexcept {
  try {
    protocol::Release release;
    release.leases.push_back({.lease = id, .kind = kind, .changed = std::move(changed)});
    (void)ClientSend(release);  // where it fails the pooler sees the hang-up
  } catch (...) {
    ClientHangUp();
  }
}

// In before_shmem_exit. What is in sync goes back into its pool; the rest the pooler cancels and
// closes.
void GiveBackAtExit(int /*code*/, Datum /*arg*/) {
  while (leases != nullptr) {
    ClientRelease(leases, ReleaseKind::kClean);
  }
  ClientHangUp();
}

}  // namespace

void LeaseFree(PolarxLease* lease) noexcept {
  delete static_cast<Parameters*>(lease->lent_parameters);
  ReleaseExternalFD();
  pfree(lease);
}

void LeaseAppend(PolarxLease* const* added, int count) noexcept {
  PolarxLease** link = &leases;
  while (*link != nullptr) {
    link = &(*link)->next;
  }
  for (int i = 0; i < count; ++i) {
    *link = added[i];
    link = &added[i]->next;
  }
}

void ClientPrepareExit() {
  static bool prepared = false;
  if (!prepared) {
    before_shmem_exit(GiveBackAtExit, 0);
    prepared = true;
  }
}

void ClientRelease(PolarxLease* lease, ReleaseKind kind) noexcept {
  Unlink(lease);
  const bool current = ClientLeaseCurrent(lease);
  Parameters changed;
  if (PGconn* conn = lease->conn; conn != nullptr) {
    kind = CorrectedKind(lease, kind);
    if (kind != ReleaseKind::kClose && !KeepChanges(lease, &changed)) {
      kind = ReleaseKind::kClose;
    }
    if (!current) {
      (void)::shutdown(PQsocket(conn), SHUT_RDWR);
    }
    DetachConnection(conn);
  } else {
    kind = ReleaseKind::kClose;
  }
  if (current) {
    SendRelease(lease->id, kind, std::move(changed));
  }
  PQclear(lease->result);
  PQfinish(lease->conn);
  LeaseFree(lease);
}

void ClientCancel(PolarxLease* lease) noexcept {
  lease->cancelled = true;
  if (ClientLeaseCurrent(lease)) {
    (void)ClientSend(protocol::Cancel{.lease = lease->id});
  }
}

PolarxLease* ClientLeases() { return leases; }

bool ClientLeaseCurrent(const PolarxLease* lease) {
  const Attachment* attachment = ClientAttachment();
  return attachment != nullptr && attachment->number == lease->attachment;
}

}  // namespace polarx
