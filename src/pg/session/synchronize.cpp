// A lent connection with work under way is brought back in sync here, within a time limit and
// without interrupts; in a backend, on its only thread.
#include <libpq-fe.h>
#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "core/time.h"

#include "pg/session/client.h"
#include "pg/prelude.h"

namespace polarx {
namespace {

// In this call: the cancel has struck, so it will hit nothing else; what follows comes by itself.
bool cancel_struck = false;

void IgnoreNotice(void* /*arg*/, const PGresult* /*result*/) {}

void CancelOnce(PolarxLease* lease) {
  if (!lease->cancelled) {
    ClientCancel(lease);
  }
}

// Waits for the socket and takes in what has come. False: the time is over or the connection lost.
bool WaitForInput(PolarxLease* lease, TimePoint deadline) {
  PGconn* conn = lease->conn;
  const int unsent = PQflush(conn);
  if (unsent < 0) {
    return false;
  }
  const int left = MillisecondsUntil(deadline);
  if (left == 0) {
    return false;
  }
  CancelOnce(lease);
  pollfd wait = {PQsocket(conn), static_cast<short>(POLLIN | (unsent > 0 ? POLLOUT : 0)), 0};
  const int ready = ::poll(&wait, 1, left);
  if (ready == 0 || (ready < 0 && errno != EINTR)) {
    return false;
  }
  return PQconsumeInput(conn) == 1;
}

// Reads the rest of a COPY from the datanode. False: the time is over or the connection lost.
bool SkipCopyOut(PolarxLease* lease, TimePoint deadline) {
  CancelOnce(lease);  // rows may come faster than they are read
  for (;;) {
    char* row = nullptr;
    const int length = PQgetCopyData(lease->conn, &row, 1);
    PQfreemem(row);
    if (length < 0) {
      return length == -1;
    }
    if (length == 0 ? !WaitForInput(lease, deadline) : Now() >= deadline) {
      return false;
    }
  }
}

bool EndCopyIn(PolarxLease* lease, TimePoint deadline) {
  for (;;) {
    const int sent = PQputCopyEnd(lease->conn, "given up by the coordinator");
    if (sent != 0) {
      return sent > 0;
    }
    if (!WaitForInput(lease, deadline)) {
      return false;
    }
  }
}

// Takes one result, which is there. False: the connection cannot be brought in sync.
bool TakeResult(PolarxLease* lease, TimePoint deadline) {
  PGconn* conn = lease->conn;
  PGresult* result = PQgetResult(conn);
  const ExecStatusType status = PQresultStatus(result);
  if (result == nullptr || status == PGRES_PIPELINE_SYNC) {
    // Succeeds after the last statement of a pipeline; until then there is more to read.
    (void)PQexitPipelineMode(conn);
  }
  const char* code = PQresultErrorField(result, PG_DIAG_SQLSTATE);
  if (code != nullptr && std::strcmp(code, sqlstate::kQueryCanceled) == 0) {
    cancel_struck = true;
  }
  PQclear(result);
  switch (status) {
    case PGRES_SINGLE_TUPLE:
      CancelOnce(lease);
      return Now() < deadline;
    case PGRES_COPY_IN:
      return EndCopyIn(lease, deadline);
    case PGRES_COPY_OUT:
      return SkipCopyOut(lease, deadline);
    case PGRES_COPY_BOTH:
      return false;
    default:
      return Now() < deadline;
  }
}

bool DrainResults(PolarxLease* lease, TimePoint deadline) {
  PGconn* conn = lease->conn;
  // Even if nothing is to be read: the last statements may have been sent without a sync.
  if (PQpipelineStatus(conn) != PQ_PIPELINE_OFF && PQpipelineSync(conn) != 1) {
    return false;
  }
  while (PQtransactionStatus(conn) == PQTRANS_ACTIVE ||
         PQpipelineStatus(conn) != PQ_PIPELINE_OFF) {
    (void)PQconsumeInput(conn);  // a lost connection shows below
    while (PQisBusy(conn)) {
      if (!WaitForInput(lease, deadline)) {
        return false;
      }
    }
    if (!TakeResult(lease, deadline) || PQstatus(conn) != CONNECTION_OK) {
      return false;
    }
  }
  return PQflush(conn) == 0;
}

// Changing the mode flushes, and would block where the datanode does not read.
bool SetNonblocking(PolarxLease* lease, TimePoint deadline) {
  if (PQisnonblocking(lease->conn)) {
    return true;
  }
  pollfd wait = {PQsocket(lease->conn), POLLOUT, 0};
  return ::poll(&wait, 1, MillisecondsUntil(deadline)) == 1 &&
         PQsetnonblocking(lease->conn, 1) == 0;
}

}  // namespace

bool ClientSynchronize(PolarxLease* lease, int limit_ms) noexcept {
  PGconn* conn = lease->conn;
  if (lease->broken || conn == nullptr || PQstatus(conn) != CONNECTION_OK) {
    return false;
  }
  PQclear(lease->result);
  lease->result = nullptr;
  if (lease->borrowed) {
    PQsetNoticeReceiver(conn, IgnoreNotice, nullptr);  // the borrower's own might ereport
  }
  const TimePoint deadline = Now() + std::chrono::milliseconds(std::max(limit_ms, 1));
  cancel_struck = false;
  const bool blocking = PQisnonblocking(conn) == 0;
  if (!SetNonblocking(lease, deadline) || !DrainResults(lease, deadline) ||
      (blocking && PQsetnonblocking(conn, 0) != 0)) {
    return false;
  }
  lease->cancelled = lease->cancelled && !cancel_struck;
  const PGTransactionStatusType status = PQtransactionStatus(conn);
  return status == PQTRANS_IDLE || status == PQTRANS_INTRANS || status == PQTRANS_INERROR;
}

}  // namespace polarx
