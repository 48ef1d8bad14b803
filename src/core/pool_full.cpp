// A node without room: what is given up for a ticket, who is turned away, and what is said then; on
// the main thread.
#include <algorithm>
#include <cstdio>

#include "core/pool_book.h"

namespace polarx {

// Does an older ticket than the beneficiary's wait for the pool's idle slots? One that lacks a slot
// elsewhere keeps them from others that want several nodes, for these two might go on taking slots
// from each other, but from nobody else.
bool PoolBook::IsClaimed(const Pool& pool, const Pool& beneficiary) {
  const Ticket& first = *beneficiary.queue.front();
  for (const Ticket* ticket : pool.queue) {
    if (ticket->id >= first.id) {
      break;  // the queue is in order of arrival
    }
    if (first.wants.size() > 1 || !ticket->LacksElsewhere(pool)) {
      return true;
    }
  }
  return false;
}

// The pool farthest above its minimum, of those whose idle slots no older ticket waits for; null:
// none.
Pool* PoolBook::VictimFor(const Pool& beneficiary) {
  return SlotTable::LargestWithIdle(*beneficiary.node, [&beneficiary](const Pool& pool) {
    return &pool != &beneficiary && !IsClaimed(pool, beneficiary);
  });
}

// Could a connect show by now whether the trouble is over, and none is under way?
bool PoolBook::ProbeIsDue(const Pool& pool, const HoldOff& hold_off, TimePoint now) {
  const bool whole_node = &hold_off == &pool.node->hold_off;
  return hold_off.Permits(now) && (whole_node ? pool.node->count(SlotState::kConnecting)
                                              : pool.count(SlotState::kConnecting)) == 0;
}

// Gives up the idle slot longest unused.
bool PoolBook::Evict(Pool* beneficiary, TimePoint now) {
  Pool* victim = VictimFor(*beneficiary);
  if (victim == nullptr) {
    return false;
  }
  CloseSlot(&victim->list(SlotState::kIdle).back(), CloseReason::kIdle, now);
  sizer_.BlockRefill(beneficiary->node, now);
  return true;
}

void PoolBook::RejectHopeless(Pool* pool, TimePoint now) {
  if (pool->queue.empty() || pool->node->paused) {
    return;
  }
  Node* node = pool->node;
  const Sizes sizes = pool->sizes();
  if (sizes.idle > 0) {
    return;  // its tickets wait for other pools
  }
  const HoldOff* hold_off = pool->ProvenHoldOff();
  // A probe that is due waits for room.
  if (hold_off != nullptr && sizes.resetting == 0 && !ProbeIsDue(*pool, *hold_off, now)) {
    // The probe under way, if any, is for the first; the others learn the truth at once.
    auto ticket = pool->queue.begin();
    std::advance(ticket, std::min<std::size_t>(static_cast<std::size_t>(sizes.connecting),
                                               pool->queue.size()));
    while (ticket != pool->queue.end()) {
      Ticket* next = *ticket++;
      if (!next->patient || pool->count(SlotState::kLeased) == 0) {
        RejectTicket(next, hold_off->Refusal(now));
      }
    }
    return;
  }
  if (pool->impatient > 0 && CanOpen(*pool, true, now)) {
    RejectForRoom(pool, now);
    return;
  }
  const int total = node->total();
  // What is idle is kept for older tickets, nobody knows for how long.
  if (pool->impatient > 0 && total >= node->limits.max_size &&
      node->leased() + node->count(SlotState::kIdle) == total && VictimFor(*pool) == nullptr) {
    for (auto ticket = pool->queue.begin(); ticket != pool->queue.end();) {
      Ticket* next = *ticket++;
      if (!next->patient) {
        ++pool->counters.rejected;
        RejectTicket(next, FullStatus(*pool, *next, now));
      }
    }
  }
}

std::string PoolBook::WaitedText(const Ticket& ticket, TimePoint now) {
  char text[40];
  std::snprintf(text, sizeof(text), " (waited for %.1f s)",
                std::chrono::duration<double>(now - ticket.arrived_at).count());
  return text;
}

Status PoolBook::FullStatus(const Pool& pool, const Ticket& ticket, TimePoint now) {
  const Node& node = *pool.node;
  const Limits limits = node.limits;
  const Slot* oldest = node.oldest_lease();
  const int leased = node.leased();
  const int others = node.waiting - 1;
  char text[256];
  std::snprintf(text, sizeof(text),
                "%d of at most %d connections are leased, %d are being opened, reset or closed; "
                "%d other %s waiting.",
                leased, limits.max_size, node.total() - leased - node.count(SlotState::kIdle),
                others, others == 1 ? "request is" : "requests are");
  std::string detail = text;
  if (oldest != nullptr) {
    std::snprintf(text, sizeof(text), " Process %d has held one for %.1f s",
                  surroundings_->SessionPid(oldest->lease.session),
                  std::chrono::duration<double>(now - oldest->state_since).count());
    detail += text;
    if (const Ticket* other = TicketOf(oldest->lease.session); other != nullptr) {
      detail += " and waits for datanode";
      for (const Ticket::Want& want : other->wants) {
        detail += (&want == &other->wants.front() ? " \"" : ", \"") +
                  want.pool->node->definition.name + "\"";
      }
    }
    detail += ".";
  }
  std::string hint = "Raise pooler.max_pool_size (or the server's option max_pool_size), or ";
  hint += ticket.patient ? "raise pooler.queue_timeout to wait longer."
                         : "set pooler.queue_timeout to wait for a free connection.";
  std::string message = "pool of datanode \"" + node.definition.name + "\" is full";
  if (ticket.patient) {
    message += WaitedText(ticket, now);
  }
  return Status(sqlstate::kPoolFull, message, detail, hint);
}

}  // namespace polarx
