// Requests that the pooler worker answers by rows or by a number. In a backend, on its only thread;
// all of them attach first, wait interruptibly and raise 57P03 if the pooler is gone.
#pragma once

#include "core/protocol.h"

#include "pg/session/nodes.h"

namespace polarx {

// The pooler's rows go into `result`, for which InitMaterializedSRF has been called, through the
// text input functions of its columns.
void ClientShow(protocol::View view, ReturnSetInfo* result);
void ClientPing(const NodeRef* nodes, int count, ReturnSetInfo* result);

// Closes idle connections, InvalidOid and NULL stand for all. Returns how many were closed or will
// be at their release.
int64 ClientClean(Oid node, const char* remote_user);
// The pooler holds the requests for the node (InvalidOid: all nodes), or lets them go.
void ClientPause(Oid node, bool paused);
void ClientReload();
void ClientResetStats();
// Tells the pooler, without waiting or attaching, that a transaction was committed on some nodes
// and not everywhere. No ereport.
void ClientCountPartialCommit() noexcept;
// Returns whether the nodes that the pooler knows are those of the catalog, as this transaction
// sees it.
bool ClientCheckNodes();
// Returns the process ids of the other sessions that hold leases on the node of that name (NULL: on
// any), each once; palloc'd.
int* ClientHolders(const char* node_name, int* count);

}  // namespace polarx
