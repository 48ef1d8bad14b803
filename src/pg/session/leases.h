// The leases of a backend: what it holds, how it acquires and gives back. On its only thread.
//
// What becomes of a lease and its PGconn. What is not parked is freed, and its PGconn kept for the
// next lease if nothing is left in it:
//
//   verb                  parks            resets                     closes the connection
//   ClientPark            if plain         never                      never
//   ClientParkOrRelease   as it is         if it cannot be parked     as ClientRelease
//   ClientRelease         behind a reset   always, session or pooler  kClose, out of sync, no
//   pooler ClientReturn          never            always, the pooler         out of sync, no pooler
//   LeaseGiveBack         if plain         as ClientRelease           as ClientRelease
//   ClientCancel          never            never                      never
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
// What has come has made libpq's buffers grow.
inline void LeaseNoteBulk(PolarxLease* lease) { lease->connection.bulky = true; }
// The cancel has struck, so it will strike nothing else.
inline void LeaseNoteCancelStruck(PolarxLease* lease) { lease->connection.cancelled = false; }
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
void ClientHangUpOn(bool (*wanted)(const PolarxLease* lease, int level), int level) noexcept;
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
// Writes into the lease's cell how long it has been held; before it is parked or given back there.
void LeaseTellHold(const PolarxLease* lease) noexcept;
// Returns how long it takes to get leases from the pooler, as it has been of late, and less with
// each call, so that who waits so long for something else asks from time to time.
Duration ClientHandOutTime() noexcept;

}  // namespace polarx
