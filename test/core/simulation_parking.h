// What the sessions of a simulated world do with leases that they park or give back quietly.
#pragma once

#include "simulation.h"

namespace polarx {

// As it is, or behind a reset; or gives it back.
inline void Simulation::Park(Client* client, std::size_t index) {
  const LeaseId lease = client->leases[index];
  const Slot* slot = book_->FindLease(lease);
  const Node& node = *slot->pool->node;
  const bool resets = slot->parking.cell != nullptr && chance_.Percent(50);
  if (resets) {
    answers_due_.insert(slot->id);
    slot->parking.cell->sent_ms.store(parking::ClockMs(now_));
  }
  if (slot->parking.cell == nullptr ||
      parking::Park(slot->parking.cell, *node.cell, lease,
                    resets ? parking::State::kResetSent : parking::State::kParked) !=
          parking::Parked::kYes) {
    GiveBack(client, index,
             resets ? protocol::ReleaseKind::kResetSent : protocol::ReleaseKind::kClean);
    return;
  }
  Require(node.published == 0 && !node.paused, "a lease is parked while others wait");
  Require(slot->doomed == CloseReason::kNone || slot->doomed == CloseReason::kError,
          "a doomed lease is parked");
  client->leases.erase(client->leases.begin() + static_cast<std::ptrdiff_t>(index));
  client->unseen = false;
  client->parked.push_back({lease, slot->parking.cell, node.cell, false, resets});
}

// By a message where it cannot be done through the cell.
inline void Simulation::GiveBackQuietly(Client* client, std::size_t index) {
  const LeaseId lease = client->leases[index];
  const Slot* slot = book_->FindLease(lease);
  const Node& node = *slot->pool->node;
  if (slot->parking.cell == nullptr ||
      parking::GiveBack(slot->parking.cell, *node.cell, lease) != parking::Parked::kYes) {
    GiveBack(client, index, protocol::ReleaseKind::kClean);
    return;
  }
  Require(now_ <= slot->state_since + parking::kFreshTime, "a lease is fresh for too long");
  Require(node.published == 0 && !node.paused, "a lease waits while others wait for it");
  client->leases.erase(client->leases.begin() + static_cast<std::ptrdiff_t>(index));
  client->unseen = false;
  client->returned.push_back({lease, slot->parking.cell, node.cell});
  ++returns_;
}

inline void Simulation::Retake(Client* client, std::size_t index) {
  const Kept kept = client->parked[index];
  const parking::Retaken outcome =
      kept.taken ? parking::Retaken::kTaken : parking::Retake(kept.cell, *kept.node, kept.lease);
  if (outcome != parking::Retaken::kYes) {
    Require((outcome == parking::Retaken::kTaken) == kept.taken, "a parked lease is lost");
    Unpark(client, index);
    return;
  }
  client->parked.erase(client->parked.begin() + static_cast<std::ptrdiff_t>(index));
  client->leases.push_back(kept.lease);
  ++retakes_;
  const Slot& slot = *book_->FindLease(kept.lease);
  Require((answers_due_.erase(slot.id) > 0) == kept.reset_sent, "an answer is lost");
  const Node& node = *slot.pool->node;
  Require(node.published == 0 && !node.paused, "who waits is overtaken");
  Require(!slot.pool->obsolete && (slot.doomed == CloseReason::kNone || dead_.contains(slot.id)),
          "a doomed lease is taken again");
  Require(!mappings_[node.definition.id - 1][slot.lease.role - 10].restricted ||
              slot.connection.password_used,
          "the password rule is broken");
  if (dead_.contains(slot.id)) {
    GiveBack(client, client->leases.size() - 1, protocol::ReleaseKind::kClose);
  }
}

inline void Simulation::Unpark(Client* client, std::size_t index) {
  const Kept kept = client->parked[index];
  client->parked.erase(client->parked.begin() + static_cast<std::ptrdiff_t>(index));
  Require(parking::Unpark(kept.cell, kept.lease) != kept.taken, "a parked lease has two owners");
  if (!kept.taken) {
    client->leases.push_back(kept.lease);
    GiveBack(client, client->leases.size() - 1,
             kept.reset_sent ? protocol::ReleaseKind::kResetSent : protocol::ReleaseKind::kClean);
  }
}

}  // namespace polarx
