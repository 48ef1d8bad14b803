// A lease is taken into use for remote statements, brought to a stop and given back. In a backend,
// on its only thread; nothing here raises an error.
#pragma once

#include "pg/session/client.h"

namespace polarx {

// Longest wait, for all leases together, until what is given up has stopped.
inline constexpr int kStopLimitMs = 100;

// Non-blocking, notices forwarded, and in pipeline mode if `pipeline`. Idle leases only. False:
// broken.
bool LeaseTakeUp(PolarxLease* lease, bool pipeline) noexcept;

// May an idle lease that was kept be used again? One look at its socket.
bool LeaseUsable(const PolarxLease* lease) noexcept;

// Sends the commands without awaiting them; ++unread_batches. What cannot be sent at once breaks
// the lease.
void LeasePost(PolarxLease* lease, const char* const* commands, int count) noexcept;

// Ends what is under way on those of the leases for which `wanted` holds: reads the results that
// have come, cancels what still runs and waits at most kStopLimitMs. Afterwards each of them is in
// sync or broken. While the backend exits it does not wait.
using LeaseCondition = bool (*)(const PolarxLease* lease, int level);
void LeasesStop(LeaseCondition wanted, int level) noexcept;

// Gives a stopped lease back, in an open or failed transaction or none; `keep`: it stays with the
// session, rolled back, if it is sound.
void LeaseGiveBack(PolarxLease* lease, bool keep) noexcept;

}  // namespace polarx
