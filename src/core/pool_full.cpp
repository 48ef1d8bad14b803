// Requests that have nothing to wait for are turned away; on the main thread.
#include <algorithm>
#include <vector>

#include "core/pool_book.h"
#include "core/refusals.h"

namespace polarx {

void PoolBook::RejectHopeless(Pool* pool, TimePoint now) {
  Node* node = pool->node;
  if (node->paused || node->waiting == 0) {
    return;
  }
  if (!pool->queue.empty() && pool->count(SlotState::kIdle) == 0) {
    const ConnectVerdict verdict = gate_.Ask(*pool, ConnectPurpose::kRequest, now);
    if (verdict.answer == ConnectVerdict::kRefused) {
      RejectHeldOff(pool, *verdict.because, now);
    } else if (verdict.answer == ConnectVerdict::kOpen) {
      RejectForRoom(pool, now);
    }
  }
  if (node->judged != dispatch_) {
    node->judged = dispatch_;
    RejectBeyondSlots(node, now);
  }
}

// What is under way, a probe or a slot that comes back, is for the first ones; the others learn the
// truth at once. Those with a queue_timeout wait while slots may come back, but not for a datanode
// that cannot be reached: it takes its connections along.
void PoolBook::RejectHeldOff(Pool* pool, const HoldOff& hold_off, TimePoint now) {
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
    RejectTicket(ticket, refusal);
  }
}

// A full node has a slot, not lent or soon not, for so many of its oldest tickets; of those behind
// these who has no queue_timeout is told.
void PoolBook::RejectBeyondSlots(Node* node, TimePoint now) {
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
    RejectTicket(ticket, FullStatus(*node, *ticket, node->waiting, now));
  }
}

Status PoolBook::FullStatus(const Node& node, const Ticket& ticket, int place, TimePoint now) {
  std::optional<LongestHolder> holder;
  if (const Slot* oldest = node.oldest_lease(); oldest != nullptr) {
    holder = {.pid = surroundings_->SessionPid(oldest->lease.session),
              .held = now - oldest->state_since,
              .waits = TicketOf(oldest->lease.session)};
  }
  return FullRefusal(node, ticket, place, holder, now);
}

}  // namespace polarx
