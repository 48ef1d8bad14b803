// Remote transactions follow the local one, one per node and role. In a backend, on its only
// thread.
#pragma once

#include "pg/session/client.h"
#include "pg/remote/remote_statement.h"

namespace polarx {

// Runs the statement on all `nodes` at once, within this session's remote transactions, which are
// begun or taken to the local nest level where they are not there yet. Connections that are missing
// are acquired in one request. Returns the runs, all kDone, in the order of `nodes`; palloc'd. An
// error on any node is an error here, at once.
RemoteRun* TransactionRun(const NodeRef* nodes, int count, const StatementText* text,
                          RowSink* sink);

// Commits all remote transactions at once (transaction_commit.cpp), before the local commit. An
// error if one of them does not commit.
void TransactionCommitAll();

// --- the leases: transaction_leases.cpp ----------------------------------------------------------

// The nodes on which the current role has a transaction open; palloc'd.
NodeRef* TransactionNodes(int* count);
// The lease of the current role's transaction on that node; NULL: there is none.
PolarxLease* TransactionLease(Oid node);
// Has this session a transaction open on the node, under whatever role?
bool TransactionOpenOn(Oid node);

// Is the lease one of these transactions', not borrowed and not of an autocommit statement?
bool TransactionOwns(const PolarxLease* lease);
// May the lease stay with the session when its transaction ends? No ereport.
bool TransactionKeeps(const PolarxLease* lease);
// Before kept leases of the current role are used: marks those that are recalled.
void TransactionRefreshKept();
// Before the commit: marks the leases that must not be kept, because of what has changed in the
// catalog since they were acquired.
void TransactionConfirmKept();
// Gives back the kept leases that are not in use.
void TransactionDiscardKept();

}  // namespace polarx
