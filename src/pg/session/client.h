// A backend's side of the pooler: attach, acquire, give back, ask. One backend, its only thread.
#pragma once

#include <cstdint>

#include "core/protocol.h"
#include "core/time.h"

extern "C" {
struct pg_conn;
struct pg_result;
}

#include "pg/prelude.h"

namespace polarx {
struct AppliedParameters;
struct LeaseCell;
struct NodeCell;
struct Shell;
}  // namespace polarx

namespace polarx {

// Since when a session holds the lease, and whether it may go on; session/ writes it.
struct LeaseHold {
  uint64 counted;        // generation that it is counted for in lease_count.h; 0: not counted
  uint64 catalog_epoch;  // ClientCatalogEpoch() up to which it is known to be the role's due
  TimePoint since;       // it was acquired, or taken again
  bool recalled;         // it goes back at the end of the transaction at the latest
};

// What is known of its connection; session/ writes it, others by the functions below.
struct LeaseConnection {
  bool broken;     // lost or out of sync: the datanode is to close it
  bool cancelled;  // a cancel was sent that no result has shown yet: it may still strike what is
                   // sent next, so nothing but a release should follow
  bool plain;      // the statements on it have left nothing behind, as far as is known
  bool bulky;      // libpq's buffers have grown for what came: the PGconn ends with the lease
  bool stretched;  // a borrower had the time to make them grow: likewise
  bool hung_up;    // ClientHangUpOn has told the datanode to close it
};

// Where the session may park it; session/park writes it.
struct LeaseParking {
  LeaseCell* cell;  // null: nowhere
  const NodeCell* node_cell;
  Oid session_user;    // when it was parked
  bool reset_sent;     // the answer is unread: it is parked, or about to be released
  size_t answer_size;  // of that answer, which has come; 0: it has not, as far as is known
  bool answer_is_new;  // it has come just now, and nothing behind it
};

// The transaction and the statements on the datanode; remote/ writes it.
struct LeaseRemote {
  int begin_level;      // local nest level that it belongs to: rolled back there, it ends; 0: none
  int base_level;       // level without a savepoint there: that of the transaction itself
  int level;            // level it has reached, by savepoints s<base_level + 1>, …; 0: none
  int release_level;    // savepoint to be released in front of the next statement; 0: none
  int read_only_level;  // level since which it is READ ONLY; 0: it is not
  int unread_batches;   // sent without awaiting; their results come before the next statement's
  bool busy;            // a statement has been sent whose results are not all read
  bool autocommit;      // it runs one statement outside the local transaction
  pg_result* result;    // the last one that was read
  AppliedParameters* applied;  // what it was given of the session's parameters; null: nothing
};

// Who uses it through the C interface, and then runs its transactions; sql/c_interface writes it,
// and parking ends it.
struct LeaseBorrower {
  bool present;
  int level;  // nest level of the (sub)transaction it was acquired in
};

}  // namespace polarx

// The opaque type of the C interface. All leases of this backend are in one list. What stands
// directly in it is set when it is acquired.
struct PolarxLease {
  uint64 id;          // in the pooler
  uint64 attachment;  // number of this backend's attachment that it came by
  Oid node;           // foreign server
  Oid role;           // who acquired it
  char node_name[NAMEDATALEN];
  pg_conn* conn;
  polarx::Shell* shell;  // has conn in it
  int backend_pid;       // of the datanode
  polarx::LeaseHold hold;
  polarx::LeaseConnection connection;
  polarx::LeaseParking parking;
  polarx::LeaseRemote remote;
  polarx::LeaseBorrower borrower;
  PolarxLease* next;
};

namespace polarx {

// In the postmaster, while it loads the library: makes what the first acquire of a session would
// have to make, where that leaves descriptors enough.
void ClientMakeSpares() noexcept;

// One node in a request; name for messages.
struct NodeRef {
  Oid id;
  char name[NAMEDATALEN];
};

// Grows whenever a server, a user mapping or a role has changed, as far as this backend has heard:
// a lease kept from before may no longer be the role's due.
uint64 ClientCatalogEpoch();

// Looks the server up: 42704 if there is none, 42809 if its wrapper is not polarx_pooler,
// postgres_fdw or dblink_fdw, 42501 without USAGE. 55000 if the library is not preloaded.
void ClientResolveNode(const char* name, NodeRef* node);
// Oid of the server, whatever its wrapper and the caller's rights: 42704 if there is none.
Oid ClientFindNode(const char* name);
// All servers of the wrapper polarx_pooler by name, USAGE checked for each; palloc'd array.
NodeRef* ClientAllNodes(int* count);

// 22023 unless one request may name that many nodes.
void ClientCheckCount(int count);
// Acquires a connection to each node for the current role, all or none; interruptible. The leases
// are linked into the backend's list, in the order of `nodes`. `sets`: the session's parameters
// will be set on them, which the pooler counts.
void ClientAcquire(const NodeRef* nodes, int count, bool sets, PolarxLease** leases);

// Gives a lease back and frees it, or parks it behind a reset if it may be parked. No ereport: safe
// in abort and exit callbacks.
void ClientRelease(PolarxLease* lease, protocol::ReleaseKind kind) noexcept;
// Gives one back that is clean, or with reset_sent, and that is not to be parked. No ereport.
void ClientReturn(PolarxLease* lease) noexcept;
// Parks the lease, if it may be: then it is not the caller's any more. False: nothing has happened.
// The lease is idle, with nothing unread, out of pipeline mode and blocking. No ereport.
bool ClientPark(PolarxLease* lease) noexcept;
// The same for one that has to be reset before it is used again: the reset is sent first. False: it
// is the caller's to release, broken or with reset_sent where more than nothing has happened.
bool ClientParkBehindReset(PolarxLease* lease) noexcept;
// Parks the lease if its state shows that it may be, else releases it. No ereport.
void ClientParkOrRelease(PolarxLease* lease) noexcept;
// Takes parked leases of the current role again, one to each node, all or none: false. They are
// linked as ClientAcquire does it.
bool ClientRetake(const NodeRef* nodes, int count, PolarxLease** retaken);
// Has the current role one parked on that node, which could be taken again now? One that could not
// is given back. No ereport.
bool ClientHasParked(Oid node) noexcept;
// Before the pooler is asked for `wanted`: gives back what is parked there by the current role, and
// as many of the others, longest parked first, as are in the way of parking what is asked for; not
// the role's own on `kept`. No ereport.
void ClientMakeRoom(const NodeRef* wanted, int count, const NodeRef* kept, int kept_count) noexcept;
// All that are parked. No ereport.
void ClientGiveBackParked() noexcept;
// Those of the leases that are about to be released and that no pooler worker takes back: all their
// datanodes close them at the same time, while ClientRelease waits for one after the other. No
// ereport.
void ClientHangUpOn(bool (*wanted)(const PolarxLease* lease, int level), int level) noexcept;
// What is sent between these two goes out together: several releases in one message, if there are
// several. No ereport in between.
void ClientCork(bool several) noexcept;
void ClientUncork() noexcept;
// Asks the pooler to cancel what runs on the lease. No ereport.
void ClientCancel(PolarxLease* lease) noexcept;

// The connection is lost or out of sync: nothing but a kClose is left.
inline void LeaseBreak(PolarxLease* lease) { lease->connection.broken = true; }
// A statement is sent on it; `plain`: it leaves nothing behind.
inline void LeaseNoteStatement(PolarxLease* lease, bool plain) {
  lease->connection.plain = lease->connection.plain && plain;
}
// What has come has made libpq's buffers grow.
inline void LeaseNoteBulk(PolarxLease* lease) { lease->connection.bulky = true; }
// The cancel has struck, so it will strike nothing else.
inline void LeaseNoteCancelStruck(PolarxLease* lease) { lease->connection.cancelled = false; }
// Its role may not have it any more, or the pooler wants it.
inline void LeaseRecall(PolarxLease* lease) { lease->hold.recalled = true; }
// May an idle lease that was kept be used again? One look at its socket.
bool LeaseUsable(const PolarxLease* lease) noexcept;
// Frees remote.applied, which stands in a memory context of its own: the connection has nothing of
// it any more.
void LeaseForgetApplied(PolarxLease* lease) noexcept;

PolarxLease* ClientLeases();  // head of the list, oldest first
// Does the attachment that it came by still stand? If not it stays usable as a plain connection,
// but ClientRelease only closes it.
bool ClientLeaseCurrent(const PolarxLease* lease);

// Takes in what the pooler has sent unasked, without waiting: marks the leases that it recalls.
// Replies to requests that were given up are dropped. No ereport.
void ClientLook() noexcept;
// Asks the pooler, interruptibly, which leases the changes of the catalog that this backend has
// heard of take away: those are marked as recalled, the others stand as if acquired now. Without an
// answer within pooler.pooler_connect_timeout all that the changes may concern are marked.
void ClientConfirm();

// Requests that the pooler answers by rows, put into `result` (InitMaterializedSRF has been called)
// through the text input functions of its columns, or by a number. Interruptible; they attach
// first.
void ClientShow(protocol::View view, ReturnSetInfo* result);
void ClientPing(const NodeRef* nodes, int count, ReturnSetInfo* result);
int64 ClientClean(Oid node, const char* remote_user);  // InvalidOid, NULL: all
void ClientReload();
void ClientPause(Oid node, bool paused);  // InvalidOid: all; not `paused`: resumes
void ClientResetStats();
// Are the nodes that the pooler knows those of the catalog, as this transaction sees it?
bool ClientCheckNodes();
// Process ids of the sessions that hold leases on the node of that name (NULL: on any), each once,
// this one left out; palloc'd, *count of them.
int* ClientHolders(const char* node_name, int* count);

// Waits until the socket is ready for `events` (WL_SOCKET_READABLE, WL_SOCKET_WRITEABLE), handling
// interrupts; `timeout_ms` -1: no limit; `interruptible` false: no ereport, interrupts and latch
// are left for later. False: time is over.
bool ClientWaitSocket(int socket, int events, long timeout_ms, bool interruptible);

}  // namespace polarx
