// What is done for a request whose turn has come; on the main thread.
#include "core/supplier.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "core/refusals.h"

namespace polarx {
namespace {

// So many times as long as usual.
constexpr int kSlowConnect = 4;

}  // namespace

// Once it takes longer, a ticket gets a connection of its own, or what sessions give back.
Supplier::SoonIdle Supplier::CountSoonIdle(Pool* pool, TimePoint now) {
  SoonIdle coming;
  TimePoint until = kNever;
  for (const SlotState state :
       {SlotState::kConnecting, SlotState::kWarming, SlotState::kResetting, SlotState::kChecking}) {
    const bool opening = state == SlotState::kConnecting;
    const Duration usual =
        ConnectGate::UsualConnectTime(*pool->node) * (opening ? kSlowConnect : 1);
    for (const Slot& slot : pool->list(state)) {
      if (now - slot.state_since >= usual) {
        break;  // the front is the youngest
      }
      until = std::min(until, slot.state_since + usual);
      ++(opening ? coming.from_connect : coming.from_reset);
    }
  }
  if (until != kNever && (pool->node->cell != nullptr || coming.from_reset > 0)) {
    own_.dispatcher.WakeAt(*pool, until);
  }
  return coming;
}

void Supplier::TellLack(Pool* pool, TimePoint now) {
  Node* node = pool->node;
  int lack = 0;
  if (!pool->queue.empty() && !node->paused) {
    const SoonIdle coming = CountSoonIdle(pool, now);
    lack = std::max(0, static_cast<int>(pool->queue.size()) - pool->count(SlotState::kIdle) -
                           coming.from_reset - coming.from_connect);
  }
  node->uncovered += lack - std::exchange(pool->uncovered, lack);
  Publish(node);
}

void Supplier::Publish(Node* node) {
  LeaseTable::Publish(node, static_cast<std::uint32_t>(node->uncovered + (node->paused ? 1 : 0)));
}

void Supplier::Begin(Pool* pool, TimePoint now) {
  TellLack(pool, now);
  const SoonIdle coming = CountSoonIdle(pool, now);
  pool->course = {.claimed = 0,
                  .soon = coming.from_reset + coming.from_connect,
                  .late = pool->count(SlotState::kConnecting) - coming.from_connect};
  Node* node = pool->node;
  if (std::exchange(node->supplied, own_.dispatcher.number()) != own_.dispatcher.number()) {
    node->rooms = node->count(SlotState::kClosing);
  }
}

bool Supplier::Serve(Ticket* ticket, Pool* pool, TimePoint now) {
  Course& course = pool->course;
  if (own_.queue.HasAll(*ticket) && TryGrant(ticket, now)) {
    return true;
  }
  if (!ticket->single() && own_.queue.IdleFor(*ticket, *pool) > course.claimed) {
    ++course.claimed;
  } else if (course.soon > 0) {
    --course.soon;
  } else if (course.late > 0) {
    --course.late;
    (void)(TakeParked(pool, TakeScope::kRestedOrUnused, now) ||
           TakeParked(pool, TakeScope::kAllParked, now));
  } else {
    return Obtain(*ticket, pool, now);
  }
  return true;
}

// One slot more, by whatever way is open. Other sessions' parked leases that they still use only
// where no other way is left.
bool Supplier::Obtain(const Ticket& ticket, Pool* pool, TimePoint now) {
  if (TakeParked(pool, TakeScope::kRestedOrUnused, now)) {
    return true;
  }
  Node* node = pool->node;
  const bool may_open = own_.gate.MayOpen(*pool, ConnectPurpose::kRequest, now);
  if (may_open && room_.HasRoom(*pool)) {
    life_.Open(pool, now);
    if (node->cell != nullptr) {  // if it takes longer, sessions can help
      own_.dispatcher.WakeAt(*pool, now + kSlowConnect * ConnectGate::UsualConnectTime(*node));
    }
    return true;
  }
  if (TakeParked(pool, TakeScope::kAllParked, now)) {
    return true;
  }
  if (may_open) {
    room_.MakeRoom(pool,
                   static_cast<int>(pool->queue.size()) - pool->count(SlotState::kIdle) -
                       pool->count(SlotState::kConnecting) - CountSoonIdle(pool, now).from_reset,
                   now);
    return false;
  }
  if (node->total() < node->limits.max_size || ConnectGate::IsHeldOff(*pool, now)) {
    return false;
  }
  if (PoolSizer::IsRefillBlocked(*node, now)) {
    own_.sizer.BlockRefill(node, now);
  }
  if (node->rooms > 0) {
    --node->rooms;
    return true;
  }
  return Evict(ticket, pool, now) || EvictParked(node, now);
}

bool Supplier::TakeParked(Pool* pool, TakeScope scope, TimePoint now) {
  Slot* slot = taker_.TakeParked(pool, scope, now);
  if (slot != nullptr) {
    life_.ComeBack(slot, protocol::ReleaseKind::kClean, now);
  }
  return slot != nullptr;
}

// Gives up the idle slot longest unused of another pool of the node: one that no older ticket waits
// with, where the ticket wants several nodes, for these two might go on taking slots from each
// other. What a ticket for one node takes is soon given back.
bool Supplier::Evict(const Ticket& ticket, Pool* pool, TimePoint now) {
  Pool* victim = SlotTable::LargestWithIdle(*pool->node, [&](const Pool& other) {
    const bool looked_at = other.dispatch == own_.dispatcher.number() && !ticket.single();
    return &other != pool &&
           own_.queue.IdleFor(ticket, other) > (looked_at ? other.course.claimed : 0);
  });
  if (victim == nullptr) {
    return false;
  }
  life_.Close(&victim->list(SlotState::kIdle).back(), CloseReason::kIdle, now);
  own_.sizer.BlockRefill(pool->node, now);
  return true;
}

// Of the other pools of a full node: closed. Older tickets have had theirs.
bool Supplier::EvictParked(Node* node, TimePoint now) {
  if (node->none_parked() || node->cell == nullptr) {
    return false;
  }
  for (Pool* pool : node->pools) {
    if (Slot* slot = taker_.TakeParked(pool, TakeScope::kAllParked, now); slot != nullptr) {
      life_.Close(slot, CloseReason::kIdle, now);
      own_.sizer.BlockRefill(node, now);
      return true;
    }
  }
  node->searched = node->waiting_period;
  return false;
}

bool Supplier::TryGrant(Ticket* ticket, TimePoint now) {
  std::vector<Slot*> slots;
  slots.reserve(ticket->wants.size());
  for (const Ticket::Want& want : ticket->wants) {
    Slot* slot = life_.LiveIdle(want.pool, now);
    if (slot == nullptr) {
      return false;
    }
    if (want.restricted && !slot->connection.password_used) {
      own_.events->Reject(*own_.dispatcher.TakeOut(ticket), PasswordRefusal(*want.pool->node));
      return true;
    }
    slots.push_back(slot);
  }
  const std::unique_ptr<Ticket> served = own_.dispatcher.TakeOut(ticket);
  for (std::size_t i = 0; i < slots.size(); ++i) {
    life_.Lend(slots[i], *served, served->wants[i].role, now);
  }
  if (served->waited) {
    ++counters_.client_request_from_thread;
    counters_.acquire_conn_from_thread += slots.size();
    counters_.acquire_conn_time_us +=
        static_cast<std::uint64_t>((now - served->arrived_at).count());
  } else {
    ++counters_.client_request_from_hashtab;
    counters_.acquire_conn_from_hashtab += slots.size();
    counters_.acquire_conn_from_hashtab_and_set += served->sets ? slots.size() : 0;
  }
  own_.events->Grant(*served, slots);
  return true;
}

}  // namespace polarx
