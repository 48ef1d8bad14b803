// The remote transactions of all nodes are committed at once, and what came of it is told. In a
// backend, on its only thread, before the local commit.
#pragma once

namespace polarx {

// Commits all remote transactions of this session. Raises an error if one of them does not commit:
// that of the node if none has committed, 40003 if some have, 08007 if nobody knows.
void TransactionCommitAll();

// The local transaction has ended: if it was not committed, but on nodes, a WARNING says where. No
// ereport(ERROR).
void TransactionTellCommitted(bool committed) noexcept;

}  // namespace polarx
