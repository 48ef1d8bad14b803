// The one place where what runs on a lease is stopped: read to its end, cancelled, waited for, or
// given up. In a backend, on its only thread. What nodes say meanwhile is not forwarded.
#pragma once

#include "core/time.h"

#include "pg/remote/run.h"

namespace polarx {

// Longest wait of one call, for all its leases together.
inline constexpr int kStopLimitMs = 100;

// Stops the leases of the session for which `wanted` holds: reads the results that have come,
// cancels what still runs and waits. Afterwards each of them is in sync or broken. While the
// backend exits the session's own leases are not waited for. No ereport, not interruptible.
using LeaseCondition = bool (*)(const PolarxLease* lease, int level);
void StopLeases(LeaseCondition wanted, int level) noexcept;
// The same for these leases.
void StopLeases(PolarxLease* const* leases, int count) noexcept;

// Reads the answers to what was posted on the lease (LeasePost), without a cancel; while the
// backend exits those alone that have come. Returns false if they are not all there in time.
// No ereport.
bool AwaitPosted(PolarxLease* lease) noexcept;

// Cancels the runs that have not ended and reads on, without rows. The runs tell how far it came.
// No ereport.
void StopRuns(RemoteRun* runs, int count) noexcept;

// How an attempt to bring a lease to rest has ended: in sync, and no cancel may still strike.
enum class Rest {
  kReached,
  kTimeout,      // the deadline has come
  kInterrupted,  // not interruptible, and an interrupt is pending
  kBroken,       // the connection is lost, or the backend ends; the lease is broken
};

// Reads what the session's own lease still has to say until it rests. `interruptible`: an interrupt
// is an error here, else it ends the wait. `cancelled`: what runs there has been cancelled, and is
// cancelled again from time to time. `struck`, if not null, becomes true if a statement was
// cancelled on the datanode.
Rest AwaitRest(PolarxLease* lease, TimePoint deadline, bool interruptible, bool cancelled,
               bool* struck);

}  // namespace polarx
