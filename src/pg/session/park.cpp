// The leases that a backend has parked: kept with their connections, and the pooler's to take at
// any time. On its only thread.
#include <libpq-fe.h>
#include <poll.h>

#include <algorithm>
#include <chrono>

#include "core/parking.h"
#include "core/time.h"
#include "engine/busy_wait.h"
#include "engine/sent_reset.h"

#include "pg/session/attachment.h"
#include "pg/session/park.h"
#include "pg/session/shells.h"
#include "pg/base/guc.h"
#include "pg/shared/lease_count.h"
#include "pg/prelude.h"

namespace polarx {
namespace {

// A session waits for the answer to a reset as long as asking the pooler for an idle connection
// would take, if there is one, and not longer than this. In between it looks whether the lease is
// still its own.
constexpr std::chrono::milliseconds kAnswerLimit{20};
constexpr std::chrono::milliseconds kAnswerLook{2};

PolarxLease* parked_leases = nullptr;

PolarxLease** FindParked(Oid node, Oid role) {
  PolarxLease** link = &parked_leases;
  while (*link != nullptr && ((*link)->node != node || (*link)->role != role)) {
    link = &(*link)->next;
  }
  return link;
}

PolarxLease* Unlink(PolarxLease** place) {
  PolarxLease* lease = *place;
  *place = lease->next;
  return lease;
}

// Returns the place of the lease that was parked for longest, save those of the current role on
// these nodes; null stands there if there is none.
PolarxLease** FindLongestParked(const NodeRef* kept, int count) {
  PolarxLease** found = nullptr;
  PolarxLease** link = &parked_leases;
  for (; *link != nullptr; link = &(*link)->next) {
    const PolarxLease* lease = *link;
    const bool keep = lease->role == GetUserId() &&
                      std::any_of(kept, kept + count,
                                  [lease](const NodeRef& node) { return node.id == lease->node; });
    found = keep ? found : link;
  }
  return found != nullptr ? found : link;
}

// Returns how many of this session's cells have a lease.
int CellsInUse() {
  int count = 0;
  for (const PolarxLease* lease = parked_leases; lease != nullptr; lease = lease->next) {
    ++count;
  }
  for (const PolarxLease* lease = ClientLeases(); lease != nullptr; lease = lease->next) {
    count += lease->parking.cell != nullptr ? 1 : 0;
  }
  return count;
}

// Returns whether the pooler has not taken it.
bool IsParked(const PolarxLease* lease) noexcept {
  return parking::IsParked(parking::StateOf(*lease->parking.cell, lease->id));
}

// The pooler has taken it: what is left is this process's own.
void Drop(PolarxLease* lease) noexcept {
  ClientShells()->Detach(lease->shell, !lease->connection.stretched);
  ClientCountShells();
  LeaseFree(lease);
}

// What the pooler has taken meanwhile does not count, and is dropped.
bool NoneParked(Oid node, Oid role) noexcept {
  PolarxLease** place = FindParked(node, role);
  if (*place != nullptr && !IsParked(*place)) {
    Drop(Unlink(place));
    return true;
  }
  return *place == nullptr;
}

// Returns whether the lease may be parked, as it is or behind a reset.
bool MayPark(const PolarxLease* lease) noexcept {
  return parameters.park_leases && lease->parking.cell != nullptr && !lease->connection.broken &&
         !lease->connection.bulky && !lease->connection.cancelled && !lease->hold.recalled &&
         !proc_exit_inprogress && lease->hold.catalog_epoch == ClientCatalogEpoch() &&
         ClientLeaseCurrent(lease) && NoneParked(lease->node, lease->role) &&
         ClientShells()->MakeFit(lease->shell) && lease->shell->as_new;
}

// Releases a lease that is unlinked, unless the pooler has it already.
void GiveBack(PolarxLease* lease) noexcept {
  // Without the attachment that it came by, the pooler takes it as soon as it hears of that.
  if (!ClientLeaseCurrent(lease) || !parking::Unpark(lease->parking.cell, lease->id)) {
    Drop(lease);
    return;
  }
  LeaseAppend(&lease, 1);
  ClientReturn(lease);
}

// Parks the lease in its cell. Returns false if the caller has it still.
bool ParkAs(PolarxLease* lease, parking::State state) noexcept {
  LeaseTellHold(lease);
  lease->parking.cell->borrowed_ms.store(0);
  LeaseUnlink(lease);
  switch (parking::Park(lease->parking.cell, *lease->parking.node_cell, lease->id, state)) {
    case parking::Parked::kYes:
      break;
    case parking::Parked::kNo:
      LeaseAppend(&lease, 1);
      return false;
    case parking::Parked::kTaken:
      Drop(lease);
      return true;
  }
  if (lease->hold.counted != 0) {
    LeaseCountDrop(lease->node, lease->hold.counted, false);
    lease->hold.counted = 0;
  }
  lease->parking.session_user = GetSessionUserId();
  lease->borrower = {};
  lease->next = parked_leases;
  parked_leases = lease;
  return true;
}

void WaitReadable(int socket, Duration limit) noexcept {
  pollfd wait = {socket, POLLIN, 0};
  const auto us = std::max<Duration::rep>(limit.count(), 0);
  const timespec time = {us / 1000000, us % 1000000 * 1000};
  (void)::ppoll(&wait, 1, &time, nullptr);
}

Duration AnswerLimit(const NodeCell& node) noexcept {
  return node.idle.load() == 0
             ? kAnswerLimit
             : std::clamp<Duration>(ClientHandOutTime(), BusyPoll::kLook, kAnswerLimit);
}

// Waits for the answer to the reset that a parked lease is behind, uninterruptibly. Returns false
// if it has not come, or is not for a session to judge. The lease stays parked meanwhile.
bool AwaitAnswer(PolarxLease* lease) noexcept {
  static BusyPoll policy;
  const int socket = PQsocket(lease->conn);
  PlainAnswer answer = LookForPlainAnswer(socket);
  const bool awaited = !answer.come;
  if (awaited) {
    const TimePoint until = Now() + AnswerLimit(*lease->parking.node_cell);
    (void)LookBusily(&policy, [&] { return (answer = LookForPlainAnswer(socket)).come; });
    while (!answer.come && IsParked(lease) && lease->parking.node_cell->waiting.load() == 0) {
      const TimePoint now = Now();
      if (now >= until) {
        break;
      }
      WaitReadable(socket, std::min<Duration>(until - now, kAnswerLook));
      answer = LookForPlainAnswer(socket);
    }
  }
  lease->parking.answer_size = answer.size;
  lease->parking.answer_is_new = awaited && answer.alone;
  return answer.size > 0;
}

// Returns whether its role may still have the lease, as far as this backend has heard.
bool IsDue(const PolarxLease* lease) noexcept {
  return ClientLeaseCurrent(lease) && lease->hold.catalog_epoch == ClientCatalogEpoch() &&
         lease->parking.session_user == GetSessionUserId() && parameters.park_leases;
}

// Takes the parked lease, which is unlinked, into use again. Returns null if it is gone.
PolarxLease* Retake(PolarxLease* lease) noexcept {
  const Attachment* attachment = ClientAttachment();
  // Before it is in use: a pooler worker that ends then leaves it to its successor.
  lease->hold.counted =
      LeaseCountAdd(lease->node, attachment->generation) ? attachment->generation : 0;
  switch (parking::Retake(lease->parking.cell, *lease->parking.node_cell, lease->id)) {
    case parking::Retaken::kYes:
      break;
    case parking::Retaken::kNotNow:
      GiveBack(lease);
      return nullptr;
    case parking::Retaken::kTaken:
      Drop(lease);
      return nullptr;
  }
  lease->hold.since = Now();
  LeaseAppend(&lease, 1);
  bool just_heard = false;  // from the datanode: a look would find nothing new
  if (lease->parking.reset_sent) {
    lease->parking.reset_sent = false;
    lease->connection.plain = true;
    lease->connection.broken = !TakePlainAnswer(PQsocket(lease->conn), lease->parking.answer_size);
    just_heard = lease->parking.answer_is_new && !lease->connection.broken;
  }
  if (!just_heard && !LeaseUsable(lease)) {
    LeaseBreak(lease);
    ClientRelease(lease, protocol::ReleaseKind::kClose);
    return nullptr;
  }
  return lease;
}

}  // namespace

void ClientNoteBorrowed(const PolarxLease* lease) noexcept {
  if (lease->parking.cell != nullptr) {
    const TimePoint now = Now();
    lease->parking.cell->begun_us.store(
        static_cast<BegunAt>(GetCurrentTransactionStartTimestamp()));
    lease->parking.cell->borrowed_ms.store(std::max<uint32>(parking::ClockMs(now), 1));
  }
}

bool ClientPark(PolarxLease* lease) noexcept {
  return lease->connection.plain && MayPark(lease) && ParkAs(lease, parking::State::kParked);
}

// Several at once are better reset by the pooler, which sends less often.
bool ClientParkBehindReset(PolarxLease* lease) noexcept {
  const char* reset = parameters.reset_query;
  if (lease->parking.reset_sent || lease->connection.stretched || ClientCorkedSeveral() ||
      !MayPark(lease) || lease->parking.node_cell->waiting.load() != 0 ||
      strlen(reset) > kLongestReset) {
    return false;
  }
  if (!SendReset(PQsocket(lease->conn), reset)) {
    LeaseBreak(lease);
    return false;
  }
  LeaseForgetApplied(lease);
  lease->parking.reset_sent = true;
  lease->parking.cell->sent_ms.store(parking::ClockMs(Now()));
  return ParkAs(lease, parking::State::kResetSent);
}

bool ClientKeepsParked(Oid node) noexcept {
  PolarxLease** place = FindParked(node, GetUserId());
  const PolarxLease* lease = *place;
  if (lease == nullptr) {
    return false;
  }
  if (IsDue(lease) && lease->parking.node_cell->waiting.load() == 0 && IsParked(lease)) {
    return true;
  }
  GiveBack(Unlink(place));
  return false;
}

void ClientMakeRoom(const NodeRef* wanted, int count, const NodeRef* kept,
                    int kept_count) noexcept {
  if (parked_leases == nullptr) {
    return;
  }
  ClientCork(true);
  for (int i = 0; i < count; ++i) {
    if (PolarxLease** place = FindParked(wanted[i].id, GetUserId()); *place != nullptr) {
      GiveBack(Unlink(place));
    }
  }
  for (int more = CellsInUse() + count - static_cast<int>(kCellsOfASession); more > 0; --more) {
    PolarxLease** place = FindLongestParked(kept, kept_count);
    if (*place == nullptr) {
      break;
    }
    GiveBack(Unlink(place));
  }
  ClientUncork();
}

bool ClientRetake(const NodeRef* nodes, int count, PolarxLease** retaken) noexcept {
  if (parked_leases == nullptr) {
    return false;
  }
  // Of several all or none: who holds some while it waits for others may wait for ever.
  for (int i = 0; i < count; ++i) {
    PolarxLease** place = FindParked(nodes[i].id, GetUserId());
    if (*place == nullptr) {
      return false;
    }
    if (!IsDue(*place) || ((*place)->parking.reset_sent && !AwaitAnswer(*place))) {
      GiveBack(Unlink(place));
      return false;
    }
  }
  for (int i = 0; i < count; ++i) {
    (*FindParked(nodes[i].id, GetUserId()))->parking.answer_is_new &= count == 1;
    retaken[i] = Retake(Unlink(FindParked(nodes[i].id, GetUserId())));
    if (retaken[i] == nullptr) {
      while (i > 0) {
        ClientReturn(retaken[--i]);
      }
      return false;
    }
  }
  return true;
}

void ClientDropParked() noexcept {
  while (parked_leases != nullptr) {
    Drop(Unlink(&parked_leases));
  }
}

void ClientGiveBackParked() noexcept {
  while (parked_leases != nullptr) {
    GiveBack(Unlink(&parked_leases));
  }
  for (PolarxLease* lease = ClientLeases(); lease != nullptr; lease = lease->next) {
    lease->connection.plain = false;  // in use: it is given back when it comes to that
  }
}

}  // namespace polarx
