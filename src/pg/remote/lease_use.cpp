// A lease is taken into use for remote statements, brought to a stop and given back. In a backend,
// on its only thread; nothing here raises an error.
#include <libpq-fe.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <string_view>

#include "core/protocol.h"
#include "core/time.h"
#include "engine/server_messages.h"

#include "pg/remote/lease_use.h"
#include "pg/remote/remote_error.h"
#include "pg/prelude.h"

namespace polarx {
namespace {

// What may come in at once without waiting, when the datanode has more than that to say.
constexpr int kBriefLimitMs = 2;

bool WaitForInput(PGconn* conn, int limit_ms) {
  pollfd wait = {PQsocket(conn), POLLIN, 0};
  const int ready = ::poll(&wait, 1, limit_ms);
  return (ready > 0 || (ready < 0 && errno == EINTR)) && PQconsumeInput(conn) == 1;
}

// Reads and drops results, cancelling nothing, until the lease is in sync; waits only if `wait`.
// False: it is not yet.
bool Drain(PolarxLease* lease, TimePoint deadline, bool wait) {
  PGconn* conn = lease->conn;
  PQclear(lease->result);
  lease->result = nullptr;
  if (PQflush(conn) != 0) {
    return false;
  }
  while (PQtransactionStatus(conn) == PQTRANS_ACTIVE) {
    while (PQisBusy(conn)) {
      if (!WaitForInput(conn, wait ? MillisecondsUntil(deadline) : 0)) {
        return false;
      }
    }
    PQclear(PQgetResult(conn));
    if (PQstatus(conn) != CONNECTION_OK || Now() >= deadline) {
      return false;
    }
  }
  lease->unread_batches = 0;
  lease->busy = false;
  return true;
}

bool DrainBriefly(PolarxLease* lease) {
  return Drain(lease, Now() + std::chrono::milliseconds(kBriefLimitMs), false);
}

bool DrainPosted(PolarxLease* lease) {
  return Drain(lease, Now() + std::chrono::milliseconds(kStopLimitMs), true);
}

void Synchronize(PolarxLease* lease, TimePoint deadline) {
  if (ClientSynchronize(lease, std::max(MillisecondsUntil(deadline), 1))) {
    lease->unread_batches = 0;
    lease->busy = false;
  } else {
    lease->broken = true;
  }
}

// Are these whole messages of those kinds that a datanode sends unasked? An error that nobody asked
// for is its last word.
bool WholeUnasked(std::string_view bytes) {
  while (!bytes.empty() &&
         (bytes.front() == 'A' || bytes.front() == 'N' || bytes.front() == 'S')) {
    const size_t size = MessageSize(bytes);
    if (size < kMessageHead || size > bytes.size()) {
      return false;
    }
    bytes.remove_prefix(size);
  }
  return bytes.empty();
}

void ForgetTransaction(PolarxLease* lease) {
  lease->begin_level = 0;
  lease->remote_level = 0;
  lease->release_level = 0;
}

}  // namespace

bool LeaseTakeUp(PolarxLease* lease, bool pipeline) noexcept {
  PQsetNoticeReceiver(lease->conn, ForwardNotice, lease);
  if (PQsetnonblocking(lease->conn, 1) != 0 ||
      (pipeline && PQenterPipelineMode(lease->conn) != 1)) {
    lease->broken = true;
  }
  return !lease->broken;
}

bool LeaseUsable(const PolarxLease* lease) noexcept {
  if (lease->broken || PQstatus(lease->conn) != CONNECTION_OK) {
    return false;
  }
  // A notice may stand before the end of file, so what has come is taken in and looked behind.
  constexpr int kMostLooks = 64;
  bool whole = lease->unread_batches == 0;  // no message is cut off before what comes now
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

void LeasePost(PolarxLease* lease, const char* const* commands, int count) noexcept {
  PGconn* conn = lease->conn;
  bool sent = LeaseTakeUp(lease, true);
  for (int i = 0; sent && i < count; ++i) {
    sent = PQsendQueryParams(conn, commands[i], 0, nullptr, nullptr, nullptr, nullptr, 0) == 1;
  }
  if (sent && PQpipelineSync(conn) == 1 && PQflush(conn) == 0) {
    ++lease->unread_batches;
  } else {
    lease->broken = true;
  }
}

void LeasesStop(LeaseCondition wanted, int level) noexcept {
  bool left = false;
  for (PolarxLease* lease = ClientLeases(); lease != nullptr; lease = lease->next) {
    if (!lease->busy || lease->broken || !wanted(lease, level) || DrainBriefly(lease)) {
      continue;
    }
    if (proc_exit_inprogress || ProcDiePending) {
      lease->broken = true;
    } else {
      ClientCancel(lease);
      left = true;
    }
  }
  if (!left) {
    return;
  }
  const TimePoint deadline = Now() + std::chrono::milliseconds(kStopLimitMs);
  for (PolarxLease* lease = ClientLeases(); lease != nullptr; lease = lease->next) {
    if (lease->busy && !lease->broken && wanted(lease, level)) {
      Synchronize(lease, deadline);
    }
  }
}

void LeaseGiveBack(PolarxLease* lease, bool keep) noexcept {
  PGconn* conn = lease->conn;
  if (!lease->broken && lease->unread_batches > 0 &&
      !(proc_exit_inprogress ? DrainBriefly(lease) : DrainPosted(lease))) {
    lease->broken = true;
  }
  ForgetTransaction(lease);
  if (keep && !lease->broken && !lease->cancelled && ClientLeaseCurrent(lease)) {
    if (PQtransactionStatus(conn) != PQTRANS_IDLE) {
      const char* rollback = "ROLLBACK";
      LeasePost(lease, &rollback, 1);
    }
    if (!lease->broken) {
      return;
    }
  }
  PQclear(lease->result);
  lease->result = nullptr;
  const bool sound = !lease->broken && PQexitPipelineMode(conn) == 1 &&
                     PQsetnonblocking(conn, 0) == 0;
  if (sound && PQtransactionStatus(conn) == PQTRANS_IDLE && ClientPark(lease)) {
    return;
  }
  ClientRelease(lease, sound ? protocol::ReleaseKind::kClean : protocol::ReleaseKind::kClose);
}

}  // namespace polarx
