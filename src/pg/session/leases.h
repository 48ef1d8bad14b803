// The leases of a backend: what it holds, how it acquires and gives back. On its only thread.
//
// What the verbs do to a lease. What is not parked or kept is freed; its PGconn stays with the
// session for the next lease, unless the connection is closed or libpq's buffers have grown.
//
//   verb                   parks            resets                    closes the connection
//   ClientPark             if plain         no                        no
//   ClientParkOrRelease    as it is         unless parked             as ClientRelease
//   ClientRelease          behind a reset   session or pooler does    kClose, or out of sync
//   ClientReturn           no               the pooler does           if out of sync
//   LeaseGiveBack          if plain         unless parked or kept     if out of sync
//   ClientCancel           no               no                        no
//
// A lease that no pooler worker takes back is never parked, and closed by its release.
#pragma once

#include <cstdint>

#include "core/protocol.h"
#include "core/time.h"

extern "C" {
struct pg_conn;
struct pg_result;
}

#include "pg/session/nodes.h"
#include "pg/prelude.h"

namespace polarx {

struct AppliedParameters;
struct LeaseCell;
struct NodeCell;
struct Shell;

// Since when the session holds the lease, and whether it may go on. session/ writes it.
struct LeaseHold {
  // The worker's generation that lease_count.h counts the lease for; 0: it is not counted.
  uint64 counted;
  // Up to this ClientCatalogEpoch() the lease is known to be its role's due.
  uint64 catalog_epoch;
  // When the session acquired the lease, or took it into use again.
  TimePoint since;
  // The session gives the lease back at the end of the transaction at the latest.
  bool recalled;
};

// What is known of the lease's connection. session/ writes it, others by the functions below.
struct LeaseConnection {
  // It is lost or out of sync: the datanode is to close it.
  bool broken;
  // A cancel was sent, and the pooler has not said yet that it is through: it may still strike what
  // is sent next.
  bool cancelled;
  // The number of the last cancel.
  uint32 cancel;
  // The statements on it have left nothing behind in the datanode's session, as far as is known.
  bool plain;
  // The bytes that had gone over it when the pooler lent it, if the kernel counts them.
  uint64 moved_before;
  // libpq's buffers have grown, in either direction, or what a borrower has moved may have made
  // them grow: the PGconn ends with the lease.
  bool bulky;
  bool stretched;
  // ClientHangUpStranded has told the datanode to close it.
  bool hung_up;
};

// Where the session may park the lease. session/park writes it.
struct LeaseParking {
  // The lease's cell and its node's in shared memory; null if the lease cannot be parked.
  LeaseCell* cell;
  const NodeCell* node_cell;
  // The session user when the lease was parked.
  Oid session_user;
  // The session has sent a reset whose answer is unread: the lease is parked or about to be
  // released.
  bool reset_sent;
  // The size of that answer, once it has come; 0: it has not, as far as is known.
  size_t answer_size;
  // That answer has come just now, and nothing behind it.
  bool answer_is_new;
};

// The transaction and the statements on the datanode. remote/ writes it; levels are nest levels of
// the local transaction, 0: none.
struct LeaseRemote {
  // The level that the remote transaction belongs to: where that is rolled back, it ends.
  int begin_level;
  // The level of the remote transaction itself, which has no savepoint.
  int base_level;
  // The level that the remote transaction has reached, by savepoints s<base_level + 1>, ….
  int level;
  // The savepoint that is to be released in front of the next statement.
  int release_level;
  // The level since which the remote transaction is READ ONLY.
  int read_only_level;
  // The savepoint that an error has left to be rolled back to before all else.
  int rollback_level;
  // An interrupt has ended the wait for that, which is gone on with before the lease is used again.
  bool postponed;
  // The lease is broken because it did not become usable for that within this time; 0: it did.
  int waited_ms;
  // Batches that were sent without awaiting; their results come before the next statement's.
  int unread_batches;
  // A statement has been sent whose results are not all read.
  bool busy;
  // The lease runs one statement outside the local transaction.
  bool autocommit;
  // The result that was read last, if it is not cleared yet.
  pg_result* result;
  // What the datanode's session was given of the session's parameters; null: nothing.
  AppliedParameters* applied;
};

// Who uses the lease through the C interface, and then runs its transactions. sql/c_interface
// writes it, and parking ends it.
struct LeaseBorrower {
  bool present;
  // The nest level of the (sub)transaction that the lease was acquired in.
  int level;
};

}  // namespace polarx

// The opaque type of the C interface. What stands directly in it is set when it is acquired.
struct PolarxLease {
  // The pooler's number of the lease, and this backend's number of the attachment it came by.
  uint64 id;
  uint64 attachment;
  // The foreign server, its name, and the role that acquired the lease.
  Oid node;
  char node_name[NAMEDATALEN];
  Oid role;
  // The connection; `shell` has it in it.
  pg_conn* conn;
  polarx::Shell* shell;
  // The process of the datanode.
  int backend_pid;
  polarx::LeaseHold hold;
  polarx::LeaseConnection connection;
  polarx::LeaseParking parking;
  polarx::LeaseRemote remote;
  polarx::LeaseBorrower borrower;
  // The next one in the list of this backend's leases.
  PolarxLease* next;
};

namespace polarx {

// --- the list: lease.cpp -------------------------------------------------------------------------

// Returns the head of the list, oldest first.
PolarxLease* ClientLeases();
// Returns whether the attachment that the lease came by still stands. Else it stays usable as a
// plain connection, but ClientRelease only closes it.
bool ClientLeaseCurrent(const PolarxLease* lease);
// Returns whether an idle lease that was kept may be used again, by one look at its socket.
bool LeaseUsable(const PolarxLease* lease) noexcept;

// The connection is lost or out of sync: nothing but a kClose is left.
inline void LeaseBreak(PolarxLease* lease) { lease->connection.broken = true; }
// A statement is sent on it; `plain`: the statement leaves nothing behind.
inline void LeaseNoteStatement(PolarxLease* lease, bool plain) {
  lease->connection.plain = lease->connection.plain && plain;
}
// A message of that many bytes has come or is to be sent: a large one makes libpq's buffers grow.
inline void LeaseNoteSize(PolarxLease* lease, size_t size) {
  constexpr size_t kBulk = 64 * 1024;
  lease->connection.bulky = lease->connection.bulky || size > kBulk;
}
// The lease's role may not have it any more, or the pooler wants it.
inline void LeaseRecall(PolarxLease* lease) { lease->hold.recalled = true; }
// Frees remote.applied, which stands in a memory context of its own: the connection has nothing of
// it any more.
void LeaseForgetApplied(PolarxLease* lease) noexcept;

// Marks the leases that the pooler recalls, as far as it has said so; does not wait, and drops
// replies to requests that were given up. No ereport.
void ClientHeedRecalls() noexcept;
// Asks the pooler, interruptibly, which leases the changes of the catalog that this backend has
// heard of take away: those are marked as recalled, the others stand as if acquired now. Without an
// answer within pooler.pooler_connect_timeout all that the changes may concern are marked.
void ClientConfirm();

// --- acquire.cpp ---------------------------------------------------------------------------------

// Raises 22023 unless one request may name that many nodes.
void ClientCheckCount(int count);
// Acquires a connection to each node for the current role, all or none; waits interruptibly, as
// pooler.queue_timeout says. The leases are linked into the backend's list, in the order of
// `nodes`. `sets`: the session's parameters will be set on them, which the pooler counts. Raises
// the pooler's reason, 53000 without descriptors, 57P03 without a pooler worker.
void ClientAcquire(const NodeRef* nodes, int count, bool sets, PolarxLease** leases);

// --- release.cpp; no ereport: safe in the callbacks of abort and exit ----------------------------

// Gives the lease back and frees it, or parks it behind a reset if it may be parked. `kind` is
// corrected by what the connection's state shows. A lease that no pooler worker takes back is
// closed, and the datanode's end awaited for a second at most.
void ClientRelease(PolarxLease* lease, protocol::ReleaseKind kind) noexcept;
// Parks the lease as it is, if its state shows that it may be, else releases it.
void ClientParkOrRelease(PolarxLease* lease) noexcept;
// Gives back and frees a lease that is clean, or with reset_sent, and that is not to be parked.
void ClientReturn(PolarxLease* lease) noexcept;

// Before several leases are released: hangs up on those of them that no pooler worker takes back.
// All their datanodes close them at the same time, while ClientRelease waits for one after the
// other.
void ClientHangUpStranded(bool (*wanted)(const PolarxLease* lease, int level), int level) noexcept;
// What is sent between these two goes out together: several releases in one message, if there are
// several. No ereport in between.
void ClientCork(bool several) noexcept;
void ClientUncork() noexcept;
// Asks the pooler to cancel what runs on the lease; does not wait.
void ClientCancel(PolarxLease* lease) noexcept;

// --- for the files of session/ -------------------------------------------------------------------

// Frees a lease that is neither released nor linked.
void LeaseFree(PolarxLease* lease) noexcept;
void LeaseAppend(PolarxLease* const* added, int count) noexcept;
void LeaseUnlink(const PolarxLease* lease) noexcept;
// Writes into the lease's cell, if it has one, how long the session has used the lease, unless that
// stands there since it was parked; before the session parks it, gives it back or releases it.
void LeaseTellHold(const PolarxLease* lease) noexcept;
// Returns how long it takes to get leases from the pooler, as it has been of late, and less with
// each call, so that who waits so long for something else asks from time to time.
Duration ClientHandOutTime() noexcept;

}  // namespace polarx
