// Waits for datanodes, which the pooler is told of where they take long; in a backend, on its only
// thread.
#include <algorithm>
#include <chrono>

#include "core/time.h"

#include "pg/base/guc.h"
#include "pg/remote/errors.h"
#include "pg/remote/long_wait.h"
#include "pg/session/awaits.h"
#include "pg/session/waits.h"
#include "pg/prelude.h"

namespace polarx {
namespace {

// In milliseconds, -1: without a limit.
long WaitTime(TimePoint deadline) { return deadline == kNever ? -1 : MillisecondsUntil(deadline); }

bool IsAwaited(const RemoteRun* run) { return !RemoteEnded(run) && !run->held; }

void Tell(const RemoteRun* runs, int count) {
  auto** leases = static_cast<PolarxLease**>(palloc(sizeof(PolarxLease*) * count));
  int awaited = 0;
  for (int i = 0; i < count; ++i) {
    if (IsAwaited(&runs[i])) {
      leases[awaited++] = runs[i].lease;
    }
  }
  ClientTellAwaits(leases, awaited);
  pfree(leases);
}

void RaiseIfDeadlocked(const RemoteRun* runs, int count) {
  const char* detail = ClientDeadlock();
  if (detail == nullptr) {
    return;
  }
  const RemoteRun* awaited =
      std::find_if(runs, runs + count, [](const RemoteRun& run) { return IsAwaited(&run); });
  RaiseRemoteError(
      MakeRemoteError(ERRCODE_T_R_DEADLOCK_DETECTED, "deadlock detected", detail,
                      "Transactions that lock rows of several nodes in one order do not wait for "
                      "each other in a circle. See pooler.detect_deadlocks."),
      awaited->lease, awaited->sql);
}

}  // namespace

bool AwaitRuns(const RemoteRun* runs, int count, int socket, int events, TimePoint deadline) {
  if (!parameters.detect_deadlocks) {
    return ClientWaitSocket(socket, events, WaitTime(deadline), true);
  }
  const TimePoint patience = Now() + std::chrono::milliseconds(DeadlockTimeout);
  if (ClientWaitSocket(socket, events, WaitTime(std::min(deadline, patience)), true)) {
    return true;
  }
  if (deadline <= patience) {
    return false;
  }
  Tell(runs, count);
  bool ready = false;
  do {
    ready = ClientWaitOrHear(socket, events, deadline);
    if (!ready) {
      RaiseIfDeadlocked(runs, count);
    }
  } while (!ready && (deadline == kNever || Now() < deadline));
  ClientTellAwaited();
  return ready;
}

}  // namespace polarx
