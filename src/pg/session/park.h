// Parked leases: the session keeps them with their connections, and the pooler may take them at any
// time. In a backend, on its only thread; nothing here raises an error.
//
// A lease may be parked if its connection is as new, or can be made so by a reset that the session
// sends; both sides settle by its cell in shared memory (core/parking.h) who has it.
#pragma once

#include "pg/session/leases.h"

namespace polarx {

// The pooler may see that the lease is a borrower's from now on, who cannot tell it for how long it
// waits.
void ClientNoteBorrowed(const PolarxLease* lease) noexcept;

// Parks the lease, if it may be: then it is not the caller's any more. Returns false if nothing has
// happened. The lease is idle, with nothing unread, out of pipeline mode and blocking.
bool ClientPark(PolarxLease* lease) noexcept;
// The same for a lease that has to be reset before it is used again: the session sends the reset
// first. Returns false if the lease is the caller's to release: broken, or with reset_sent, where
// more than nothing has happened.
bool ClientParkBehindReset(PolarxLease* lease) noexcept;

// Takes parked leases of the current role into use again, one on each node, all or none. They stand
// in the backend's list as after ClientAcquire. Returns false if the pooler has to be asked.
bool ClientRetake(const NodeRef* nodes, int count, PolarxLease** retaken) noexcept;
// Gives back the current role's parked lease on that node, unless it could be taken again now;
// returns whether it could.
bool ClientKeepsParked(Oid node) noexcept;

// Before the pooler is asked for `wanted`: gives back what the current role has parked there, and
// as many of the others, longest parked first, as are in the way of parking what is asked for; not
// the role's own on `kept`.
void ClientMakeRoom(const NodeRef* wanted, int count, const NodeRef* kept, int kept_count) noexcept;
// Gives back all that are parked; those in use will not be parked as they are.
void ClientGiveBackParked() noexcept;
// While the backend exits: leaves all that are parked to the pooler.
void ClientDropParked() noexcept;

}  // namespace polarx
