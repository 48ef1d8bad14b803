// What the transaction callback of module.cpp does to the leases of the C interface that a borrower
// has not released. In a backend, on its only thread; no ereport.
#pragma once

namespace polarx {

// The local transaction has ended: gives them all back.
void BorrowersAfterEnd() noexcept;
// The subtransaction of that nest level has been rolled back: gives back those that were acquired
// in it; or committed: they belong to the level above it.
void BorrowersAfterLevel(int level, bool committed) noexcept;

}  // namespace polarx
