// Remote transactions survive errors inside savepoints: what runs is brought to rest and rolled
// back to the savepoint, at once or before the lease is used again. In a backend, on its only
// thread.
#pragma once

#include "pg/session/leases.h"

namespace polarx {

// The subtransaction of that nest level is rolled back: takes the leases that have reached it, and
// whose transactions began before it, back to its savepoint. Waits for what is under way there for
// at most pooler.savepoint_timeout, or until an interrupt is pending; what is not done then is left
// to SavepointSettle. A lease on which it cannot be done any more is broken. No ereport.
void SavepointRollBack(int level) noexcept;

// Before a lease with remote.rollback_level is used again: does what is left, interruptibly. Raises
// 08006 if the transaction on it is lost.
void SavepointSettle(PolarxLease* lease);

// 08006: the remote transaction cannot be gone on with, and why.
[[noreturn]] void RaiseTransactionLost(const PolarxLease* lease);

}  // namespace polarx
