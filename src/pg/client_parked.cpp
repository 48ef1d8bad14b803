// The leases that a backend has parked: kept with their connections, and the pooler's to take at
// any time. On its only thread.
#include <libpq-fe.h>

#include "polarx_pooler/core/parking.h"
#include "polarx_pooler/engine/shells.h"

#include "client_state.h"
#include "guc.h"
#include "lease_cells.h"
#include "lease_count.h"
#include "lease_use.h"
#include "prelude.h"

namespace polarx {
namespace {

PolarxLease* parked_leases = nullptr;

PolarxLease** FindParked(Oid node, Oid role) {
  PolarxLease** link = &parked_leases;
  while (*link != nullptr && ((*link)->node != node || (*link)->role != role)) {
    link = &(*link)->next;
  }
  return link;
}

// The pooler has taken it: what is left is this process's own.
void Drop(PolarxLease* lease) noexcept {
  ClientShells()->Detach(lease->shell, true);
  ClientCountShells();
  LeaseFree(lease);
}

// What the pooler has taken meanwhile does not count, and is dropped.
bool NoneParked(Oid node, Oid role) noexcept {
  PolarxLease** place = FindParked(node, role);
  PolarxLease* lease = *place;
  if (lease != nullptr && parking::StateOf(*lease->cell, lease->id) != parking::State::kParked) {
    *place = lease->next;
    Drop(lease);
    lease = nullptr;
  }
  return lease == nullptr;
}

bool MayPark(const PolarxLease* lease) noexcept {
  return parameters.park_leases && lease->plain && lease->cell != nullptr && !lease->broken &&
         !lease->bulky && !lease->cancelled && !lease->recalled && !proc_exit_inprogress &&
         lease->catalog_epoch == ClientCatalogEpoch() && ClientLeaseCurrent(lease) &&
         NoneParked(lease->node, lease->role) && ClientShells()->MakeFit(lease->shell) &&
         lease->shell->as_new;
}

// Unlinked. It is released, unless the pooler has it already.
void GiveBack(PolarxLease* lease) noexcept {
  // Without the attachment that it came by, the pooler takes it as soon as it hears of that.
  if (!ClientLeaseCurrent(lease) || !parking::Unpark(lease->cell, lease->id)) {
    Drop(lease);
    return;
  }
  LeaseAppend(&lease, 1);
  ClientRelease(lease, protocol::ReleaseKind::kClean);
}

// May its role still have it, as far as this backend has heard?
bool StillDue(const PolarxLease* lease) noexcept {
  return ClientLeaseCurrent(lease) && lease->catalog_epoch == ClientCatalogEpoch() &&
         lease->session_user == GetSessionUserId() && parameters.park_leases;
}

// Takes the parked lease again, which is unlinked; null: it is gone.
PolarxLease* Retake(PolarxLease* lease) noexcept {
  const Attachment* attachment = ClientAttachment();
  // Before it is in use: a pooler worker that ends then leaves it to its successor.
  lease->counted = LeaseCountAdd(lease->node, attachment->generation) ? attachment->generation : 0;
  switch (parking::Retake(lease->cell, *lease->node_cell, lease->id)) {
    case parking::Retaken::kYes:
      break;
    case parking::Retaken::kNotNow:
      GiveBack(lease);
      return nullptr;
    case parking::Retaken::kTaken:
      Drop(lease);
      return nullptr;
  }
  lease->acquired_level = GetCurrentTransactionNestLevel();
  lease->borrowed = false;
  lease->autocommit = false;
  LeaseAppend(&lease, 1);
  if (!LeaseUsable(lease)) {
    lease->broken = true;
    ClientRelease(lease, protocol::ReleaseKind::kClose);
    return nullptr;
  }
  return lease;
}

}  // namespace

bool ClientPark(PolarxLease* lease) noexcept {
  if (!MayPark(lease)) {
    return false;
  }
  LeaseUnlink(lease);
  switch (parking::Park(lease->cell, *lease->node_cell, lease->id)) {
    case parking::Parked::kYes:
      break;
    case parking::Parked::kNo:
      LeaseAppend(&lease, 1);
      return false;
    case parking::Parked::kTaken:
      Drop(lease);
      return true;
  }
  if (lease->counted != 0) {
    LeaseCountDrop(lease->node, lease->counted, false);
    lease->counted = 0;
  }
  lease->session_user = GetSessionUserId();
  lease->next = parked_leases;
  parked_leases = lease;
  return true;
}

bool ClientRetake(const NodeRef* nodes, int count, PolarxLease** retaken) {
  if (parked_leases == nullptr) {
    return false;
  }
  // Of several all or none: who holds some while it waits for others may wait for ever.
  for (int i = 0; i < count; ++i) {
    PolarxLease** place = FindParked(nodes[i].id, GetUserId());
    if (*place == nullptr) {
      return false;
    }
    if (!StillDue(*place)) {
      PolarxLease* lease = *place;
      *place = lease->next;
      GiveBack(lease);
      return false;
    }
  }
  for (int i = 0; i < count; ++i) {
    PolarxLease** place = FindParked(nodes[i].id, GetUserId());
    PolarxLease* lease = *place;
    *place = lease->next;
    retaken[i] = Retake(lease);
    if (retaken[i] == nullptr) {
      while (i > 0) {
        ClientRelease(retaken[--i], protocol::ReleaseKind::kClean);
      }
      return false;
    }
  }
  return true;
}

void ClientGiveBackParked() noexcept {
  while (parked_leases != nullptr) {
    PolarxLease* lease = parked_leases;
    parked_leases = lease->next;
    GiveBack(lease);
  }
  for (PolarxLease* lease = ClientLeases(); lease != nullptr; lease = lease->next) {
    lease->plain = false;  // in use: it is given back when it comes to that
  }
}

}  // namespace polarx
