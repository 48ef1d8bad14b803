// What must be true of the book-keeping after every turn, and once everything
// has come to rest.
#pragma once

#include <algorithm>
#include <string>

#include "simulation.h"

namespace polarx {

inline bool Simulation::HasRoom() const {
  int slots = 0;
  for (const auto& [id, node] : book_->directory().nodes()) {
    slots += node->slots();
  }
  return slots < room_;
}

class SimulationChecks {
 public:
  explicit SimulationChecks(Simulation* world) : world_(world), book_(*world->book_) {}

  void AfterTurn() const {
    for (const auto& [id, node] : book_.directory().nodes()) {
      CountsAddUp(*node);
    }
    LeasesAreThoseOfTheSessions();
    std::set<const Ticket*> tickets;
    for (const auto& [id, pool] : book_.directory().pools()) {
      for (const auto& [id, ticket] : pool->queue) {
        tickets.insert(ticket);
      }
      WhatIsMissingIsOpened(*pool);
      RoomIsMade(*pool);
      ParkedAreTaken(*pool);
      ColdAreWarmed(*pool);
      FirstSingleIsServed(*pool);
    }
    for (const Ticket* ticket : tickets) {
      MustWait(*ticket);
    }
  }

  // What is quickly looked at of all, and in full one node and some sessions,
  // others each time.
  void InPassing(unsigned turn) const {
    for (const auto& [id, node] : book_.directory().nodes()) {
      SizesAddUp(*node);
    }
    for (const auto& [id, pool] : book_.directory().pools()) {
      WhatIsMissingIsOpened(*pool);
      RoomIsMade(*pool);
      FirstSingleIsServed(*pool);
    }
    if (!book_.directory().nodes().empty()) {
      LookAt(*std::next(book_.directory().nodes().begin(), turn % book_.directory().nodes().size())
                  ->second);
    }
    const std::size_t clients = world_->clients_.size();
    for (std::size_t index = turn % kSessionsInPassing; index < clients;
         index += kSessionsInPassing) {
      (void)LeasesAreThoseOf(world_->clients_[index]);
    }
  }

  // Every pool has its minima and nothing to close.
  void AtRest() const {
    for (const auto& [id, pool] : book_.directory().pools()) {
      const Limits limits = pool->node->limits;
      const Sizes sizes = pool->sizes();
      const bool in_use = PoolSizer(book_.settings()).IsInUse(*pool, world_->now_);
      Require(!pool->obsolete, "a retired pool is still there");
      Require(sizes.total == sizes.idle + sizes.resetting, "a pool at rest is not idle");
      Require(SlotsToOpen(sizes, limits, pool->node->total(), in_use) == 0 || !world_->HasRoom() ||
                  pool->login_refused,
              "a pool at rest is below its minima", [&pool = *pool] { return Text(pool); });
      Require(pool->expiring() == 0 || !world_->HasRoom(), "a slot expires for ever",
              [&pool = *pool] { return Text(pool); });
    }
    for (const auto& [id, node] : book_.directory().nodes()) {
      Require(!node->obsolete, "a dropped node is still there");
    }
  }

  static std::string Text(const Pool& pool) {
    std::string text = "pool " + std::to_string(pool.id) + " of " + pool.node->definition.name;
    for (int state = 0; state < kSlotStates; ++state) {
      text += std::string(" ") + SlotStateName(static_cast<SlotState>(state)) + "=" +
              std::to_string(pool.count(static_cast<SlotState>(state)));
    }
    text += " waiting=" + std::to_string(pool.queue.size()) + " node:";
    text += " total=" + std::to_string(pool.node->total()) +
            " survivors=" + std::to_string(pool.node->survivors) +
            " waiting=" + std::to_string(pool.node->waiting);
    for (const auto& [id, ticket] : pool.queue) {
      text += " " + std::to_string(ticket->id) + "x" + std::to_string(ticket->wants.size()) +
              (ticket->patient ? "p" : "");
    }
    return text;
  }

 private:
  static constexpr unsigned kSessionsInPassing = 500;  // one of so many

  void LookAt(const Node& node) const {
    CountsAddUp(node);
    for (const Pool* pool : node.pools) {
      ParkedAreTaken(*pool);
      for (const auto& [id, ticket] : pool->queue) {
        MustWait(*ticket);
      }
    }
  }

  static void SizesAddUp(const Node& node) {
    std::array<int, kSlotStates> counts{};
    int total = 0;
    int waiting = 0;
    for (const Pool* pool : node.pools) {
      for (int index = 0; index < kSlotStates; ++index) {
        counts[static_cast<std::size_t>(index)] += pool->count(static_cast<SlotState>(index));
      }
      total += pool->total();
      waiting += static_cast<int>(pool->queue.size());
    }
    for (int index = 0; index < kSlotStates; ++index) {
      Require(node.count(static_cast<SlotState>(index)) == counts[static_cast<std::size_t>(index)],
              "slots do not add up");
    }
    Require(total == node.slots(), "slots do not add up");
    Require(waiting == node.waiting, "waiting tickets do not add up");
  }

  void CountsAddUp(const Node& node) const {
    int waiting = 0;
    int single = 0;
    int heads = 0;
    std::array<int, kSlotStates> counts{};
    for (const Pool* pool : node.pools) {
      int total = 0;
      int expiring = 0;
      int idle_lasting = 0;
      for (int index = 0; index < kSlotStates; ++index) {
        const auto state = static_cast<SlotState>(index);
        for (const Slot& slot : pool->list(state)) {
          Require(slot.state == state && slot.pool == pool, "a slot is in a wrong list");
          Require(world_->book_->FindSlot(slot.id) == &slot, "a slot cannot be found");
          expiring += slot.age.expiring ? 1 : 0;
          idle_lasting += state == SlotState::kIdle && !slot.age.expiring ? 1 : 0;
          ++counts[static_cast<std::size_t>(index)];
          ++total;
        }
      }
      Require(total == pool->total(), "sizes do not add up");
      Require(expiring == pool->expiring() && pool->lasting_sizes().total == total - expiring &&
                  pool->lasting_sizes().idle == idle_lasting &&
                  static_cast<int>(pool->expiring_idle().size()) ==
                      pool->count(SlotState::kIdle) - idle_lasting,
              "expiring slots do not add up");
      Require(!pool->dirty, "a pool was not looked at");
      for (const auto& [id, ticket] : pool->queue) {
        Require(ticket->id == id, "a queue is not in order");
        Require(node.hurried.contains(id) != ticket->patient, "a request is not known to hurry");
        single += ticket->single() ? 1 : 0;
        ++waiting;
      }
      if (!pool->queue.empty()) {
        const auto head = node.heads.find(pool->queue.begin()->first);
        Require(head != node.heads.end() && head->second == pool, "a pool is not in turn");
        ++heads;
      }
    }
    Require(waiting == node.waiting && single == node.waiting_single &&
                heads == static_cast<int>(node.heads.size()),
            "waiting tickets do not add up");
    int uncovered = node.paused ? 1 : 0;
    for (const Pool* pool : node.pools) {
      uncovered += pool->uncovered;
      Require(pool->uncovered > 0 || node.paused ||
                  static_cast<int>(pool->queue.size()) <= Coming(*pool),
              "a request that lacks a slot is not told of", [pool] { return Text(*pool); });
      Require(pool->uncovered <= static_cast<int>(pool->queue.size()),
              "more requests are told of than wait");
    }
    Require(
        node.cell == nullptr || node.cell->waiting.load() == static_cast<std::uint32_t>(uncovered),
        "sessions do not see who waits");
    Require(
        node.cell == nullptr || (node.cell->idle.load() != 0) == (node.count(SlotState::kIdle) > 0),
        "sessions do not see what is idle");
    int slots = node.survivors;
    for (int index = 0; index < kSlotStates; ++index) {
      const int count = counts[static_cast<std::size_t>(index)];
      Require(count == node.count(static_cast<SlotState>(index)), "slots do not add up");
      slots += count;
    }
    Require(slots == node.total(), "slots do not add up");
  }

  // How many it has.
  std::size_t LeasesAreThoseOf(const Client& client) const {
    Require(client.waiting == (book_.TicketOf(client.id) != nullptr), "a request is lost");
    std::size_t held = client.leases.size() + client.returned.size();
    for (LeaseId lease : client.leases) {
      const Slot* slot = world_->book_->FindLease(lease);
      Require(slot != nullptr && slot->state == SlotState::kLeased && slot->lease.id == lease &&
                  slot->lease.session == client.id,
              "a lease is not its session's");
      Require(!slot->parked(), "a lease in use is parked");
    }
    for (const Kept& kept : client.parked) {
      const Slot* slot = world_->book_->FindLease(kept.lease);
      Require((slot == nullptr) == kept.taken, "a parked lease is lost");
      Require(kept.taken || (slot->parked() && slot->lease.session == client.id),
              "a parked lease is not its session's");
      held += kept.taken ? 0 : 1;
    }
    for (const Kept& kept : client.returned) {
      const Slot* slot = world_->book_->FindLease(kept.lease);
      Require(slot != nullptr && slot->lease.session == client.id &&
                  parking::StateOf(*slot->parking.cell, kept.lease) == parking::State::kReturned,
              "a lease that was given back is lost");
      Require(world_->now_ < slot->state_since + parking::kFreshTime,
              "a lease that was given back is not looked at");
    }
    return held;
  }

  void LeasesAreThoseOfTheSessions() const {
    std::size_t held = 0;
    for (const Client& client : world_->clients_) {
      held += LeasesAreThoseOf(client);
    }
    for (const auto& [id, pool] : book_.directory().pools()) {
      held -= static_cast<std::size_t>(pool->count(SlotState::kLeased));
    }
    Require(held == 0, "leased slots and leases do not add up");
  }

  bool IsFull(const Node& node) const { return node.total() >= node.limits.max_size; }

  // Besides what is kept for the request that has the token.
  bool HasLiveIdle(const Pool& pool) const {
    int live = 0;
    for (const Slot& slot : pool.list(SlotState::kIdle)) {
      live += world_->dead_.contains(slot.id) ? 0 : 1;
    }
    return live > pool.kept;
  }

  static bool Paused(const Ticket& ticket) {
    for (const Ticket::Want& want : ticket.wants) {
      if (want.pool->node->paused) {
        return true;
      }
    }
    return false;
  }

  // At a full node an older request of another pool comes first.
  bool HasToYield(const Ticket& ticket) const {
    for (const Ticket::Want& want : ticket.wants) {
      if (!IsFull(*want.pool->node)) {
        continue;
      }
      for (const Pool* other : want.pool->node->pools) {
        if (other != want.pool && !other->queue.empty() &&
            other->queue.begin()->first < ticket.id) {
          return true;
        }
      }
    }
    return false;
  }

  // Nothing is reserved for requests for several nodes that stand before it.
  void FirstSingleIsServed(const Pool& pool) const {
    for (const auto& [id, ticket] : pool.queue) {
      if (ticket->wants.size() == 1) {
        Require(pool.node->paused || !HasLiveIdle(pool) || HasToYield(*ticket),
                "a request waits beside an idle slot", [&] { return Text(pool); });
        return;
      }
    }
  }

  void MustWait(const Ticket& ticket) const {
    Require(world_->now_ < world_->FindClient(ticket.session)->answer_by,
            "a request waits beyond its queue_timeout");
    if (Paused(ticket)) {
      return;
    }
    for (const Ticket::Want& want : ticket.wants) {
      const Node& node = *want.pool->node;
      Require(ticket.patient || !IsFull(node) || node.leased() < node.total(),
              "an impatient request waits for a node that is lent out",
              [&] { return Text(*want.pool); });
    }
    Require(!CouldBeServed(ticket) || HasToYield(ticket) || IsBehindAnother(ticket),
            "a request waits beside idle slots");
    Require(ticket.answer_by > world_->now_, "a request outlives its answer-by");
    const Settings& settings = book_.settings();
    const Duration longest =
        std::max<Duration>(settings.pooler_connect_timeout, settings.pooler_dn_set_timeout);
    const Duration paused =
        world_->PausedTime() - world_->FindClient(ticket.session)->paused_before;
    Require(ticket.patient ||
                world_->now_ < ticket.arrived_at + longest + paused + RequestQueue::kAttemptEnds,
            "a request waits for longer than it may");
  }

  bool CouldBeServed(const Ticket& ticket) const {
    return !Paused(ticket) &&
           std::all_of(ticket.wants.begin(), ticket.wants.end(),
                       [this](const Ticket::Want& want) { return HasLiveIdle(*want.pool); });
  }

  // One that yields, or that could be served but for such a one before it in
  // turn: the first of these has to yield itself.
  bool IsBehindAnother(const Ticket& ticket) const {
    for (const Ticket::Want& want : ticket.wants) {
      for (const auto& [id, older] : want.pool->queue) {
        if (older->id < ticket.id && (HasToYield(*older) || CouldBeServed(*older))) {
          return true;
        }
      }
    }
    return false;
  }

  // What will be idle soon; what takes long is not waited for.
  int Coming(const Pool& pool) const {
    int count = pool.count(SlotState::kIdle) + pool.count(SlotState::kConnecting);
    for (const SlotState state :
         {SlotState::kWarming, SlotState::kResetting, SlotState::kChecking}) {
      for (const Slot& slot : pool.list(state)) {
        count += world_->now_ - slot.state_since < std::chrono::seconds(1) ? 1 : 0;
      }
    }
    return count;
  }

  // One attempt at a time where the last one failed.
  bool MayNotConnect(const Pool& pool) const {
    const int connecting = pool.node->count(SlotState::kConnecting);
    if (pool.node->hold_off.proven() &&
        (connecting > 0 || !pool.node->hold_off.Permits(world_->now_))) {
      return true;
    }
    return connecting >= kParallelConnects || pool.trial_until > world_->now_ ||
           (pool.node->waiting > static_cast<int>(pool.queue.size()) &&
            pool.count(SlotState::kConnecting) >= kParallelConnects / 2) ||
           (pool.hold_off.proven() &&
            (pool.count(SlotState::kConnecting) > 0 || !pool.hold_off.Permits(world_->now_)));
  }

  // New connections are warmed up as soon as nothing else is to be done, a few
  // at a time.
  void ColdAreWarmed(const Pool& pool) const {
    const Node& node = *pool.node;
    const int warming = node.count(SlotState::kWarming);
    Require(warming <= kParallelWarmups, "too many are warmed up", [&] { return Text(pool); });
    Require(pool.cold.empty() || !pool.queue.empty() || warming == kParallelWarmups ||
                node.count(SlotState::kConnecting) > 0,
            "a new connection stays cold", [&] { return Text(pool); });
  }

  void WhatIsMissingIsOpened(const Pool& pool) const {
    const Node& node = *pool.node;
    if (pool.queue.empty() || node.paused || IsFull(node) || MayNotConnect(pool)) {
      return;
    }
    if (!world_->HasRoom()) {
      DescriptorsAreFreed(pool);
      return;
    }
    Require(static_cast<int>(pool.queue.size()) <= Coming(pool), "nothing is opened for a request",
            [&] { return Text(pool); });
  }

  // No connection of another node is kept, unused, from a request that lacks a
  // descriptor.
  void DescriptorsAreFreed(const Pool& pool) const {
    int closing = 0;
    for (const auto& [id, node] : book_.directory().nodes()) {
      closing += node->count(SlotState::kClosing);
    }
    if (closing > 0 || static_cast<int>(pool.queue.size()) <= Coming(pool)) {
      return;
    }
    for (const auto& [id, other] : book_.directory().pools()) {
      if (other->queue.empty() || other->queue.begin()->first > pool.queue.begin()->first) {
        Require(other->count(SlotState::kIdle) <= other->kept,
                "a request waits for a descriptor beside an idle slot", [&] { return Text(pool); });
        for (const Slot& slot : other->list(SlotState::kLeased)) {
          Require(!slot.parked(), "a request waits for a descriptor beside a parked lease");
        }
      }
    }
    int coming = 0;
    for (const auto& [id, node] : book_.directory().nodes()) {
      coming += node->count(SlotState::kResetting) + node->count(SlotState::kChecking) +
                node->count(SlotState::kWarming);
    }
    for (const auto& [id, ticket] : pool.queue) {
      Require(ticket->patient || coming > 0 || Coming(pool) > 0,
              "an impatient request waits for a descriptor", [&] { return Text(pool); });
    }
  }

  // Other sessions' parked leases are for who waits.
  void ParkedAreTaken(const Pool& pool) const {
    if (pool.node->paused || static_cast<int>(pool.queue.size()) <= Coming(pool)) {
      return;
    }
    for (const Slot& slot : pool.list(SlotState::kLeased)) {
      Require(!slot.parked(), "a request waits beside a parked lease", [&] { return Text(pool); });
      Require(slot.parking.cell == nullptr ||
                  parking::StateOf(*slot.parking.cell, slot.lease.id) != parking::State::kReturned,
              "a request waits beside a lease that was given back", [&] { return Text(pool); });
    }
  }

  // An idle slot of a full node does not stand unused beside a request of
  // another pool.
  void RoomIsMade(const Pool& pool) const {
    const Node& node = *pool.node;
    if (pool.queue.empty() || node.paused || !IsFull(node) || MayNotConnect(pool) ||
        Coming(pool) > 0 || node.count(SlotState::kClosing) > 0) {
      return;
    }
    for (const Pool* other : node.pools) {
      Require(
          other == &pool || other->count(SlotState::kIdle) <= other->kept ||
              (!other->queue.empty() && other->queue.begin()->first < pool.queue.begin()->first),
          "no room is made for a request", [&] { return Text(pool) + " / " + Text(*other); });
    }
  }

  Simulation* const world_;
  const PoolBook& book_;
};

}  // namespace polarx
