// The leases of the session's transactions: those with work under way, those that it keeps from one
// transaction to the next, and how they are given back. In a backend, on its only thread.
#pragma once

#include "pg/session/leases.h"

namespace polarx {

// Returns whether the lease is the transactions', not borrowed and not of an autocommit statement.
bool TransactionOwns(const PolarxLease* lease);
// Returns whether the lease may stay with the session when its transaction ends. No ereport.
bool TransactionKeeps(const PolarxLease* lease);

// Returns the nodes on which the current role has a transaction open; palloc'd.
NodeRef* TransactionNodes(int* count);
// Returns the lease of the current role's transaction on that node, NULL if there is none.
PolarxLease* TransactionLease(Oid node);
// Returns whether this session has a transaction open on the node, under whatever role.
bool TransactionOpenOn(Oid node);

// The transaction on the datanode has ended. No ereport.
void TransactionForget(PolarxLease* lease) noexcept;
// Gives a stopped lease back, in an open or failed transaction or none; `keep`: it stays with the
// session, rolled back, if it is sound. No ereport.
void LeaseGiveBack(PolarxLease* lease, bool keep) noexcept;

// Before kept leases of the current role are used: marks those that are recalled.
void TransactionRefreshKept();
// Before the commit: marks the leases that must not be kept, because of what has changed in the
// catalog since they were acquired.
void TransactionConfirmKept();
// Gives back the kept leases that are not in use.
void TransactionDiscardKept();

}  // namespace polarx
