// Who is turned away; on the main thread.
#include "core/refuser.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "core/refusals.h"

namespace polarx {

void Refuser::Reject(Ticket* ticket, const Status& status) {
  own_.events->Reject(*own_.dispatcher.TakeOut(ticket), status);
}

void Refuser::RejectExpired(TimePoint now) {
  while (Ticket* ticket = own_.queue.TakeExpired(now)) {
    if (const Node* node = RequestQueue::PausedNode(*ticket); node != nullptr) {
      Reject(ticket, PausedRefusal(*node, *ticket, now));
      continue;
    }
    // The first pool that has nothing to give is the one that it waited for.
    const auto lacking = std::find_if(
        ticket->wants.begin(), ticket->wants.end(),
        [](const Ticket::Want& want) { return want.pool->count(SlotState::kIdle) == 0; });
    Pool* pool = (lacking == ticket->wants.end() ? ticket->wants.begin() : lacking)->pool;
    if (const HoldOff* hold_off = pool->ActiveHoldOff(); hold_off != nullptr) {
      Reject(ticket, hold_off->Refusal(now));
      continue;
    }
    const Node& node = *pool->node;
    const Status room = own_.surroundings->RoomFor(node);
    if (node.total() < node.limits.max_size && !room.ok()) {
      RejectForRoom(ticket, pool, room, now);
      continue;
    }
    ++pool->counters.rejected;
    Reject(ticket,
           node.total() >= node.limits.max_size
               ? FullStatus(node, *ticket, RequestQueue::PlaceOn(node, *ticket), now)
               : UnansweredRefusal(*pool, *ticket, own_.settings.pooler_connect_timeout, now));
  }
}

void Refuser::RejectHopeless(Pool* pool, TimePoint now) {
  Node* node = pool->node;
  if (node->paused || node->waiting == 0) {
    return;
  }
  if (!pool->queue.empty() && pool->count(SlotState::kIdle) == 0) {
    const ConnectVerdict verdict = own_.gate.Ask(*pool, ConnectPurpose::kRequest, now);
    if (verdict.answer == ConnectVerdict::kRefused) {
      RejectHeldOff(pool, *verdict.because, now);
    } else if (verdict.answer == ConnectVerdict::kOpen) {
      RejectWithoutRoom(pool, now);
    }
  }
  if (std::exchange(node->judged, own_.dispatcher.number()) != own_.dispatcher.number()) {
    RejectBeyondSlots(node, now);
  }
}

// What is under way, a probe or a slot that comes back, is for the first ones; the others learn the
// truth at once. Those with a queue_timeout wait while slots may come back, but not for a datanode
// that cannot be reached: it takes its connections along.
void Refuser::RejectHeldOff(Pool* pool, const HoldOff& hold_off, TimePoint now) {
  const Status refusal = hold_off.Refusal(now);
  const bool out_of_reach =
      &hold_off == &pool->node->hold_off && !hold_off.status().sqlstate().starts_with("53");
  const Sizes sizes = pool->sizes();
  int under_way = sizes.connecting + sizes.resetting;
  const bool none_comes_back = pool->count(SlotState::kLeased) + sizes.resetting == 0;
  std::vector<Ticket*> hopeless;
  for (const auto& [id, ticket] : pool->queue) {
    if (under_way-- <= 0 && (!ticket->patient || out_of_reach || none_comes_back)) {
      hopeless.push_back(ticket);
    }
  }
  for (Ticket* ticket : hopeless) {
    Reject(ticket, refusal);
  }
}

// There is no descriptor, and none comes back soon: who has no queue_timeout is told.
void Refuser::RejectWithoutRoom(Pool* pool, TimePoint now) {
  const Status status = own_.surroundings->RoomFor(*pool->node);
  const auto some = [this](SlotState state) { return own_.slots.count(state) > 0; };
  if (status.ok() || some(SlotState::kClosing) || some(SlotState::kResetting) ||
      some(SlotState::kChecking) || some(SlotState::kWarming) ||
      room_.LongestIdle(*pool, false) != nullptr) {
    return;
  }
  int under_way = pool->count(SlotState::kConnecting);
  std::vector<Ticket*> hopeless;
  for (const auto& [id, ticket] : pool->queue) {
    if (under_way-- <= 0 && !ticket->patient) {
      hopeless.push_back(ticket);
    }
  }
  for (Ticket* ticket : hopeless) {
    RejectForRoom(ticket, pool, status, now);
  }
}

// The log hears of it once in so long.
void Refuser::RejectForRoom(Ticket* ticket, Pool* pool, const Status& status, TimePoint now) {
  constexpr Duration kTellAgain = std::chrono::seconds(60);
  if (now >= told_lack_ + kTellAgain) {
    told_lack_ = now;
    own_.surroundings->Log(status.message(), status.detail());
  }
  ++pool->counters.rejected;
  Reject(ticket, status);
}

// A full node has a slot, not lent or soon not, for so many of its oldest tickets; of those behind
// these who has no queue_timeout is told.
void Refuser::RejectBeyondSlots(Node* node, TimePoint now) {
  const int hope = node->limits.max_size - node->leased();
  if (node->hurried.empty() || node->total() < node->limits.max_size ||
      (hope > 0 && node->waiting_single <= hope)) {
    return;
  }
  const TicketId last = hope > 0 ? RequestQueue::LastWithin(*node, hope) : 0;
  std::vector<Ticket*> hopeless;
  for (auto place = node->hurried.rbegin(); place != node->hurried.rend() && place->first > last;
       ++place) {
    if (hope <= 0 || place->second->single()) {
      hopeless.push_back(place->second);
    }
  }
  for (Ticket* ticket : hopeless) {
    for (const Ticket::Want& want : ticket->wants) {
      want.pool->counters.rejected += want.pool->node == node ? 1 : 0;
    }
    Reject(ticket, FullStatus(*node, *ticket, node->waiting, now));
  }
}

Status Refuser::FullStatus(const Node& node, const Ticket& ticket, int place, TimePoint now) const {
  std::optional<LongestHolder> holder;
  if (const Slot* oldest = node.oldest_lease(); oldest != nullptr) {
    holder = {.pid = own_.surroundings->SessionPid(oldest->lease.session),
              .held = now - oldest->state_since,
              .waits = own_.queue.Of(oldest->lease.session)};
  }
  return FullRefusal(node, ticket, place, holder, now);
}

}  // namespace polarx
