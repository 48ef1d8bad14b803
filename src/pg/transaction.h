// Remote transactions follow the local one, one per node and role. In a backend, on its only
// thread.
#pragma once

#include "client.h"
#include "remote_statement.h"

namespace polarx {

// Runs the statement on all `nodes` at once, within this session's remote transactions, which are
// begun or taken to the local nest level where they are not there yet. Connections that are missing
// are acquired in one request. Returns the runs, all kDone, in the order of `nodes`; palloc'd. An
// error on any node is an error here, at once.
RemoteRun* TransactionRun(const NodeRef* nodes, int count, const StatementText* text,
                          RowSink* sink);

// Has this session a transaction open on the node, under whatever role?
bool TransactionOpenOn(Oid node);

// Commits all remote transactions at once (transaction_commit.cpp), before the local commit. An
// error if one of them does not commit.
void TransactionCommitAll();

}  // namespace polarx
