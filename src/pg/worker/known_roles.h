// What the pooler worker has made use of in each role that the catalog in hand is about, so that a
// change of any other role, or of anything else in these, costs nothing; on its main thread.
#pragma once

#include "pg/base/catalog.h"

#include "pg/prelude.h"

namespace polarx {

// Registers for changes of roles. Before the first KnownRolesRemember.
void KnownRolesWatch();

// Before each reading of the catalog: what is reported during it may not be in what was read.
void KnownRolesBeginReading();
// Takes over the roles of `catalog`, and with `anew` forgets all others. Inside the transaction
// that has read it.
void KnownRolesRemember(const RawCatalog* catalog, bool anew);

// Did the server report a change of any of them since they were remembered or compared?
bool KnownRolesReported();

// Is what was reported a difference to what was remembered? Inside a transaction.
bool KnownRolesDiffer();

}  // namespace polarx
