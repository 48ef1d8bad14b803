// The one place where what runs on a lease is stopped: read to its end, cancelled, waited for, or
// given up. In a backend, on its only thread; nothing here raises an error or is interruptible.
#pragma once

#include "pg/remote/run.h"

namespace polarx {

// Longest wait of one call, for all its leases together.
inline constexpr int kStopLimitMs = 100;

// Stops the leases of the session for which `wanted` holds: reads the results that have come,
// cancels what still runs and waits. Afterwards each of them is in sync or broken. While the
// backend exits the session's own leases are not waited for.
using LeaseCondition = bool (*)(const PolarxLease* lease, int level);
void StopLeases(LeaseCondition wanted, int level) noexcept;
// The same for these leases.
void StopLeases(PolarxLease* const* leases, int count) noexcept;

// Reads the answers to what was posted on the lease (LeasePost), without a cancel; while the
// backend exits those alone that have come. Returns false if they are not all there in time.
bool AwaitPosted(PolarxLease* lease) noexcept;

// Cancels the runs that have not ended and reads on, without rows. The runs tell how far it came.
void StopRuns(RemoteRun* runs, int count) noexcept;

}  // namespace polarx
