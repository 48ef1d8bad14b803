// What becomes of a backend's leases when it exits; on its only thread.
#include "core/protocol.h"

#include "pg/session/attachment.h"
#include "pg/session/leases.h"
#include "pg/session/park.h"
#include "pg/shared/lease_count.h"
#include "pg/prelude.h"

namespace polarx {
namespace {

bool Any(const PolarxLease* /*lease*/, int /*level*/) { return true; }

// In before_shmem_exit. What is in sync goes back into its pool; the rest the pooler cancels and
// closes. What is parked or given back in its cell, others may take all the time until the pooler
// hears of the end.
void GiveBackAtExit(int /*code*/, Datum /*arg*/) {
  ClientDropParked();
  ClientHangUpStranded(Any, 0);
  while (PolarxLease* lease = ClientLeases()) {
    ClientRelease(lease, protocol::ReleaseKind::kClean);
  }
  ClientHangUp();
  LeaseCountDropAll();  // a FATAL error in the wait for leases leaves no list of them
}

}  // namespace

void ClientPrepareExit() {
  static bool prepared = false;
  if (!prepared) {
    before_shmem_exit(GiveBackAtExit, 0);
    prepared = true;
  }
}

}  // namespace polarx
