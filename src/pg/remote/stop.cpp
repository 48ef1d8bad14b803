// What runs on a lease is stopped here: read to its end, cancelled, waited for, or given up. In a
// backend, on its only thread.
#include <libpq-fe.h>
#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "core/time.h"

#include "pg/remote/notices.h"
#include "pg/remote/stop.h"
#include "pg/session/waits.h"
#include "pg/prelude.h"

namespace polarx {
namespace {

// A cancel may overtake the statement that it is for: then it is sent again.
constexpr std::chrono::milliseconds kCancelAgain{200};

enum class How {
  kTakeWhatHasCome,  // no wait
  kAwait,
  kEnd,  // and end COPY and pipeline mode
};

struct Stop {
  PolarxLease* lease;
  How how;
  TimePoint deadline;
  bool interruptible = false;
  bool yields = false;              // an interrupt ends the wait, which somebody goes on with
  bool struck = false;              // a statement was cancelled on the datanode
  TimePoint cancel_again = kNever;  // unless it has come to its end by then
};

TimePoint InMilliseconds(int limit_ms) { return Now() + std::chrono::milliseconds(limit_ms); }

void IgnoreNotice(void* /*arg*/, const PGresult* /*result*/) {}

// A borrower uses libpq itself, so libpq alone knows what is under way.
bool IsUnderWay(const PolarxLease* lease) {
  return lease->borrower.present ? PQtransactionStatus(lease->conn) == PQTRANS_ACTIVE ||
                                       PQpipelineStatus(lease->conn) != PQ_PIPELINE_OFF
                                 : lease->remote.busy;
}

// Without the attachment that the lease came by nobody says it; then none is awaited.
bool MayStillStrike(const PolarxLease* lease) {
  return lease->connection.cancelled && ClientLeaseCurrent(lease);
}

// Returns until when to wait.
TimePoint CancelAgain(Stop* stop) {
  if (stop->cancel_again == kNever) {
    return stop->deadline;
  }
  if (!MayStillStrike(stop->lease) && Now() >= stop->cancel_again) {
    ClientCancel(stop->lease);
  }
  if (MayStillStrike(stop->lease)) {
    stop->cancel_again = Now() + kCancelAgain;
  }
  return std::min(stop->deadline, stop->cancel_again);
}

bool IsInterrupted() {
  return QueryCancelPending || ProcDiePending || ProcSignalBarrierPending || !PostmasterIsAlive();
}

// Waits for the socket (`events`: 0 for the pooler alone) once. Returns false if it is time to end.
bool WaitOnce(const Stop* stop, int events, TimePoint until) {
  if (Now() >= stop->deadline || (stop->yields && IsInterrupted())) {
    return false;
  }
  if (stop->how != How::kTakeWhatHasCome) {
    ClientWaitLease(stop->lease, events, until, stop->interruptible);
    return true;
  }
  pollfd wait = {PQsocket(stop->lease->conn), POLLIN, 0};
  const int ready = ::poll(&wait, 1, 0);
  return ready > 0 || (ready < 0 && errno == EINTR);
}

// Waits for the socket and takes in what has come. Returns false if it is time to end, or the
// connection is lost.
bool WaitForInput(Stop* stop) {
  PGconn* conn = stop->lease->conn;
  const int unsent = PQflush(conn);
  if (unsent < 0) {
    return false;
  }
  const int events = WL_SOCKET_READABLE | (unsent > 0 ? WL_SOCKET_WRITEABLE : 0);
  return WaitOnce(stop, events, CancelAgain(stop)) && PQconsumeInput(conn) == 1;
}

// Reads the rest of a COPY from the datanode. Returns false if the time is over or the connection
// lost.
bool SkipCopyOut(Stop* stop) {
  for (;;) {
    char* row = nullptr;
    const int length = PQgetCopyData(stop->lease->conn, &row, 1);
    PQfreemem(row);
    if (length < 0) {
      return length == -1;
    }
    if (length == 0 ? !WaitForInput(stop) : Now() >= stop->deadline) {
      return false;
    }
  }
}

bool EndCopyIn(Stop* stop) {
  for (;;) {
    const int sent = PQputCopyEnd(stop->lease->conn, "given up by the coordinator");
    if (sent != 0) {
      return sent > 0;
    }
    if (!WaitForInput(stop)) {
      return false;
    }
  }
}

// Takes one result, which is there. Returns false if the connection cannot be brought in sync.
bool TakeResult(Stop* stop) {
  PGconn* conn = stop->lease->conn;
  PGresult* result = PQgetResult(conn);
  const ExecStatusType status = PQresultStatus(result);
  const bool end = stop->how == How::kEnd;
  if (end && (result == nullptr || status == PGRES_PIPELINE_SYNC)) {
    // Succeeds after the last statement of a pipeline; until then there is more to read.
    (void)PQexitPipelineMode(conn);
  }
  const char* code = PQresultErrorField(result, PG_DIAG_SQLSTATE);
  if (code != nullptr && std::strcmp(code, sqlstate::kQueryCanceled) == 0) {
    stop->struck = true;
  }
  LeaseNoteSize(stop->lease, PQresultMemorySize(result));
  PQclear(result);
  switch (status) {
    case PGRES_COPY_IN:
      return end && EndCopyIn(stop);
    case PGRES_COPY_OUT:
      return end && SkipCopyOut(stop);
    case PGRES_COPY_BOTH:
      return false;
    default:
      return Now() < stop->deadline;
  }
}

// Reads until nothing is under way. Returns false if something still is, or the connection is lost.
bool ReadToEnd(Stop* stop) {
  PGconn* conn = stop->lease->conn;
  const bool end = stop->how == How::kEnd;
  // Even if nothing is to be read: the last statements may have been sent without a sync.
  if (end && PQpipelineStatus(conn) != PQ_PIPELINE_OFF && PQpipelineSync(conn) != 1) {
    return false;
  }
  while (PQtransactionStatus(conn) == PQTRANS_ACTIVE ||
         (end && PQpipelineStatus(conn) != PQ_PIPELINE_OFF)) {
    if (end) {
      (void)PQconsumeInput(conn);  // a lost connection shows below
    }
    while (PQisBusy(conn)) {
      if (!WaitForInput(stop)) {
        return false;
      }
    }
    if (!TakeResult(stop) || PQstatus(conn) != CONNECTION_OK) {
      return false;
    }
  }
  return PQflush(conn) == 0;
}

// Returns false if it is not known yet that the cancel is through.
bool HearOfCancel(const Stop* stop) {
  while (MayStillStrike(stop->lease)) {
    if (!WaitOnce(stop, 0, stop->deadline)) {
      return false;
    }
  }
  return true;
}

void ForgetResults(PolarxLease* lease) {
  PQclear(lease->remote.result);
  lease->remote.result = nullptr;
}

void NoteInSync(PolarxLease* lease) {
  lease->remote.unread_batches = 0;
  lease->remote.busy = false;
}

// Reads without a cancel. Returns false if the lease is not in sync yet.
bool Read(PolarxLease* lease, How how, int limit_ms) {
  Stop stop = {.lease = lease, .how = how, .deadline = InMilliseconds(limit_ms)};
  PQsetNoticeReceiver(lease->conn, IgnoreNotice, nullptr);
  ForgetResults(lease);
  if (PQflush(lease->conn) != 0 || !ReadToEnd(&stop)) {
    return false;
  }
  NoteInSync(lease);
  return true;
}

// Reads what may come in at once, when the datanode has more than that to say.
bool ReadBriefly(PolarxLease* lease) {
  constexpr int kBriefLimitMs = 2;
  return Read(lease, How::kTakeWhatHasCome, kBriefLimitMs);
}

// Changing the mode flushes, and would block where the datanode does not read.
bool SetNonblocking(PGconn* conn, TimePoint deadline) {
  if (PQisnonblocking(conn)) {
    return true;
  }
  pollfd wait = {PQsocket(conn), POLLOUT, 0};
  return ::poll(&wait, 1, MillisecondsUntil(deadline)) == 1 && PQsetnonblocking(conn, 1) == 0;
}

// Brings the connection back in sync, whatever was done with it; what still runs has been
// cancelled. Returns whether it is idle, or in an open or failed transaction.
bool Synchronize(PolarxLease* lease, TimePoint deadline) {
  PGconn* conn = lease->conn;
  if (lease->connection.broken || conn == nullptr || PQstatus(conn) != CONNECTION_OK) {
    return false;
  }
  ForgetResults(lease);
  PQsetNoticeReceiver(conn, IgnoreNotice, nullptr);  // a borrower's own might ereport
  Stop stop = {.lease = lease, .how = How::kEnd, .deadline = std::max(deadline, InMilliseconds(1))};
  const bool blocking = PQisnonblocking(conn) == 0;
  if (!SetNonblocking(conn, stop.deadline) || !ReadToEnd(&stop) ||
      (blocking && PQsetnonblocking(conn, 0) != 0)) {
    return false;
  }
  (void)HearOfCancel(&stop);
  const PGTransactionStatusType status = PQtransactionStatus(conn);
  return status == PQTRANS_IDLE || status == PQTRANS_INTRANS || status == PQTRANS_INERROR;
}

// Returns true if something still runs on the lease, which has been cancelled: Finish is to follow.
bool Begin(PolarxLease* lease) {
  if (lease->connection.broken || !IsUnderWay(lease) ||
      (!lease->borrower.present && ReadBriefly(lease))) {
    return false;
  }
  if (ProcDiePending || (proc_exit_inprogress && !lease->borrower.present)) {
    LeaseBreak(lease);
    return false;
  }
  ClientCancel(lease);
  return true;
}

void Finish(PolarxLease* lease, TimePoint deadline) {
  if (lease->connection.broken || !IsUnderWay(lease)) {
    return;
  }
  if (Synchronize(lease, deadline)) {
    NoteInSync(lease);
  } else {
    LeaseBreak(lease);
  }
}

}  // namespace

void StopLeases(LeaseCondition wanted, int level) noexcept {
  bool left = false;
  for (PolarxLease* lease = ClientLeases(); lease != nullptr; lease = lease->next) {
    left = (wanted(lease, level) && Begin(lease)) || left;
  }
  const TimePoint deadline = InMilliseconds(kStopLimitMs);
  for (PolarxLease* lease = ClientLeases(); left && lease != nullptr; lease = lease->next) {
    if (wanted(lease, level)) {
      Finish(lease, deadline);
    }
  }
}

void StopLeases(PolarxLease* const* leases, int count) noexcept {
  bool left = false;
  for (int i = 0; i < count; ++i) {
    left = Begin(leases[i]) || left;
  }
  const TimePoint deadline = InMilliseconds(kStopLimitMs);
  for (int i = 0; left && i < count; ++i) {
    Finish(leases[i], deadline);
  }
}

bool AwaitPosted(PolarxLease* lease) noexcept {
  return proc_exit_inprogress ? ReadBriefly(lease) : Read(lease, How::kAwait, kStopLimitMs);
}

void StopRuns(RemoteRun* runs, int count) noexcept {
  NoticesDrop();
  for (int i = 0; i < count; ++i) {
    if (!RemoteEnded(&runs[i])) {
      ClientCancel(runs[i].lease);
    }
  }
  const TimePoint deadline = InMilliseconds(kStopLimitMs);
  for (int i = 0; i < count; ++i) {
    PQsetNoticeReceiver(runs[i].lease->conn, IgnoreNotice, nullptr);
    while (!RemoteAdvance(&runs[i]) && Now() < deadline) {
      (void)RemoteWait(&runs[i], deadline);
    }
  }
}

Rest AwaitRest(PolarxLease* lease, TimePoint deadline, bool interruptible, bool cancelled,
               bool* struck) {
  if (ProcDiePending || proc_exit_inprogress) {
    LeaseBreak(lease);
  }
  if (lease->connection.broken) {
    return Rest::kBroken;
  }
  Stop stop = {.lease = lease,
               .how = How::kAwait,
               .deadline = deadline,
               .interruptible = interruptible,
               .yields = !interruptible,
               .cancel_again = cancelled ? Now() + kCancelAgain : kNever};
  PQsetNoticeReceiver(lease->conn, IgnoreNotice, nullptr);
  ForgetResults(lease);
  ClientHeedRecalls();
  const bool in_sync = ReadToEnd(&stop);
  if (struck != nullptr) {
    *struck = *struck || stop.struck;
  }
  if (in_sync && PQstatus(lease->conn) == CONNECTION_OK) {
    NoteInSync(lease);
    if (HearOfCancel(&stop)) {
      return Rest::kReached;
    }
  }
  if (ProcDiePending || PQstatus(lease->conn) != CONNECTION_OK) {
    LeaseBreak(lease);
    return Rest::kBroken;
  }
  if (stop.yields && IsInterrupted()) {
    return Rest::kInterrupted;
  }
  if (Now() >= deadline) {
    return Rest::kTimeout;
  }
  LeaseBreak(lease);  // reading on does not bring it in sync
  return Rest::kBroken;
}

}  // namespace polarx
