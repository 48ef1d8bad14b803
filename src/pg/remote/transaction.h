// Remote transactions follow the local one, one per node and role. In a backend, on its only
// thread.
#pragma once

#include "pg/remote/run.h"

namespace polarx {

// Runs the statement on all `nodes` at once, within this session's remote transactions, which are
// begun or taken to the local nest level where they are not there yet. Connections that are missing
// are acquired in one request. Returns the runs, all kDone, in the order of `nodes`; palloc'd. An
// error on any node is an error here, at once.
RemoteRun* TransactionRun(const NodeRef* nodes, int count, const StatementText* text,
                          RowSink* sink);

// 25000 in a parallel query, where what is done on nodes would be lost or done twice.
void TransactionRefuseParallel();

// --- for the callback of module.cpp: transaction_end.cpp -----------------------------------------

// Commits the remote transactions. Raises an error if one of them does not commit.
void TransactionBeforeCommit();
// Raises an error if there are remote transactions.
void TransactionBeforePrepare();
// The local transaction has ended: gives the leases back, or keeps them. What a failed transaction
// has left under way is stopped first. No ereport.
void TransactionAfterEnd(bool committed) noexcept;
// The subtransaction of that nest level has been committed, or rolled back. No ereport.
void TransactionAfterLevel(int level, bool committed) noexcept;

}  // namespace polarx
