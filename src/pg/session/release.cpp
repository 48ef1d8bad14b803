// A backend gives its leases back; on its only thread.
#include <libpq-fe.h>
#include <malloc.h>
#include <sys/socket.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <optional>
#include <utility>

#include "core/parking.h"
#include "core/protocol.h"
#include "core/time.h"
#include "engine/adopt.h"
#include "engine/shells.h"
#include "engine/traffic.h"

#include "pg/session/attachment.h"
#include "pg/session/leases.h"
#include "pg/session/park.h"
#include "pg/session/shells.h"
#include "pg/session/waits.h"
#include "pg/prelude.h"

namespace polarx {
namespace {

using protocol::Parameters;
using protocol::ReleaseKind;

// Of a connection that no pooler worker takes back.
constexpr int kCloseLimitMs = 1000;
// In less time a borrower cannot have moved so much that it is worth asking the kernel.
constexpr std::chrono::milliseconds kShortBorrow{5};
// The buffers of a PGconn over which less has gone since it was lent are not worth a new one.
constexpr uint64 kMuchMoved = 256UL * 1024;

TimePoint hang_up_until{};  // those that were hung up on together are awaited until then

void IgnoreNotice(void* /*arg*/, const PGresult* /*result*/) {}

// Returns whether nothing is unread in libpq or the kernel; what may come at any time is consumed.
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
         (!lease->borrower.present && PQexitPipelineMode(lease->conn) == 1);
}

// Returns what an attempt to park the lease behind its reset has left of `kind`.
ReleaseKind AfterReset(const PolarxLease* lease, ReleaseKind kind) noexcept {
  if (lease->connection.broken) {
    return ReleaseKind::kClose;
  }
  return lease->parking.reset_sent && kind == ReleaseKind::kClean ? ReleaseKind::kResetSent : kind;
}

// Returns kClose if that is asked for, else what the connection's state shows.
ReleaseKind CorrectedKind(PolarxLease* lease, ReleaseKind kind) noexcept {
  PGconn* conn = lease->conn;
  if (lease->parking.reset_sent) {
    return kind;  // its state was looked at before that
  }
  PQsetNoticeReceiver(conn, IgnoreNotice, nullptr);
  if (kind == ReleaseKind::kClose || conn == nullptr || lease->connection.broken ||
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
    *changed = Shells::Changed(lease->shell);
    return true;
  } catch (...) {
    return false;
  }
}

// Waits, at most kCloseLimitMs and not interruptibly, until the datanode has closed its end: then
// the connection does not count there any more.
void AwaitClosed(const PolarxLease* lease) noexcept {
  const int socket = PQsocket(lease->conn);
  const TimePoint deadline =
      lease->connection.hung_up ? hang_up_until : Now() + std::chrono::milliseconds(kCloseLimitMs);
  (void)::shutdown(socket, SHUT_WR);
  char dropped[4096];
  while (Now() < deadline) {
    const ssize_t got = ::recv(socket, dropped, sizeof(dropped), MSG_DONTWAIT);
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) {
      break;
    }
    if (got < 0) {
      (void)ClientWaitSocket(socket, WL_SOCKET_READABLE, MillisecondsUntil(deadline), false);
    }
  }
  (void)::shutdown(socket, SHUT_RDWR);
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

// Returns whether the pooler worker may be gone: when it ends, it marks the leases in use.
bool NeedsLook(const PolarxLease* lease) noexcept {
  return lease->parking.cell == nullptr ||
         !parking::InUse(parking::StateOf(*lease->parking.cell, lease->id));
}

// Gives the lease back through its cell, without a message, which would cost a wake-up; returns
// whether that was possible. One message for several is worth it: the pooler resets them at once,
// not when the session asks for so many again.
bool GiveBackQuietly(PolarxLease* lease) noexcept {
  if (lease->parking.cell == nullptr || lease->connection.cancelled || lease->hold.recalled ||
      proc_exit_inprogress || ClientCorkedSeveral()) {
    return false;
  }
  return parking::GiveBack(lease->parking.cell, *lease->parking.node_cell, lease->id) !=
         parking::Parked::kNo;
}

// What a borrower has read or sent libpq does not tell, but the kernel does; where it does not,
// much takes time.
void NoteBorrower(PolarxLease* lease) noexcept {
  if (!lease->borrower.present || lease->connection.stretched || lease->conn == nullptr ||
      Now() - lease->hold.since < kShortBorrow) {
    return;
  }
  const std::optional<std::uint64_t> moved = BytesMoved(PQsocket(lease->conn));
  lease->connection.stretched = !moved || *moved - lease->connection.moved_before > kMuchMoved;
}

// The heap keeps what large buffers were, the more the larger they have been: from then on they
// have memory of their own, which goes when they go.
void GiveMemoryBack() noexcept {
  constexpr int kLarge = 1024 * 1024;
  (void)mallopt(M_MMAP_THRESHOLD, kLarge);
  (void)mallopt(M_TRIM_THRESHOLD, kLarge);
  (void)malloc_trim(0);
}

// `kind` is what the connection's state shows.
void GiveUp(PolarxLease* lease, ReleaseKind kind) noexcept {
  kind = AfterReset(lease, kind);
  LeaseUnlink(lease);
  const bool current = ClientLeaseCurrent(lease);
  Parameters changed;
  if (lease->conn != nullptr) {
    if (kind != ReleaseKind::kClose && !KeepChanges(lease, &changed)) {
      kind = ReleaseKind::kClose;
    }
    if (!current) {
      AwaitClosed(lease);
    }
    const bool keep = current && kind != ReleaseKind::kClose && !lease->connection.bulky &&
                      !lease->connection.stretched;
    ClientShells()->Detach(lease->shell, keep);
    ClientCountShells();
    if (!keep && lease->connection.bulky) {
      GiveMemoryBack();
    }
  }
  if (current) {
    LeaseTellHold(lease);
    if (kind != ReleaseKind::kClean || !changed.empty() || !GiveBackQuietly(lease)) {
      SendRelease(lease->id, kind, std::move(changed));
    }
  } else if (lease->parking.cell != nullptr) {
    parking::Free(lease->parking.cell, lease->id);  // no pooler worker does it
  }
  LeaseFree(lease);
}

}  // namespace

void ClientRelease(PolarxLease* lease, ReleaseKind kind) noexcept {
  if (NeedsLook(lease)) {
    ClientHeedRecalls();
  }
  NoteBorrower(lease);
  kind = CorrectedKind(lease, kind);
  if (kind != ReleaseKind::kClean || !ClientParkBehindReset(lease)) {
    GiveUp(lease, kind);
  }
}

void ClientReturn(PolarxLease* lease) noexcept {
  if (NeedsLook(lease)) {
    ClientHeedRecalls();
  }
  GiveUp(lease, CorrectedKind(lease, ReleaseKind::kClean));
}

void ClientParkOrRelease(PolarxLease* lease) noexcept {
  lease->connection.plain = true;
  NoteBorrower(lease);
  if (CorrectedKind(lease, ReleaseKind::kClean) != ReleaseKind::kClean || !ClientPark(lease)) {
    ClientRelease(lease, ReleaseKind::kClean);
  }
}

void ClientHangUpStranded(bool (*wanted)(const PolarxLease* lease, int level), int level) noexcept {
  bool look = false;
  for (const PolarxLease* lease = ClientLeases(); lease != nullptr; lease = lease->next) {
    look = look || (wanted(lease, level) && NeedsLook(lease));
  }
  if (!look) {
    return;
  }
  ClientHeedRecalls();
  hang_up_until = Now() + std::chrono::milliseconds(kCloseLimitMs);
  for (PolarxLease* lease = ClientLeases(); lease != nullptr; lease = lease->next) {
    if (!ClientLeaseCurrent(lease) && wanted(lease, level)) {
      (void)::shutdown(PQsocket(lease->conn), SHUT_WR);
      lease->connection.hung_up = true;
    }
  }
}

void ClientCancel(PolarxLease* lease) noexcept {
  static uint32 last = 0;
  if (ClientLeaseCurrent(lease)) {
    lease->connection.cancelled = true;
    lease->connection.cancel = ++last;
    (void)ClientSend(protocol::Cancel{.lease = lease->id, .number = last});
  }
}

}  // namespace polarx
