// Views are answered here, a piece a turn; on the main thread.
#include "engine/view_answers.h"

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>

namespace polarx {
namespace {

constexpr std::size_t kRowsAPiece = 100;

}  // namespace

void ViewAnswers::Begin(const Session& session, const protocol::Show& show, TimePoint now) {
  (void)book_->CollectReturned(now);
  book_->CountParked();
  jobs_.push_back({.session = session.id,
                   .view = show.view,
                   .frame = protocol::RowsFrame(show.request),
                   .ids = IdsOf(show.view)});
}

void ViewAnswers::Continue(TimePoint now) {
  if (jobs_.empty()) {
    return;
  }
  const WallClock clock = Wall(now);
  // In turn: a short view does not wait until a long one is whole.
  for (std::size_t budget = kRowsATurn; budget > 0 && !jobs_.empty();) {
    Job job = std::move(jobs_.front());
    jobs_.pop_front();
    Session* session = sessions_->Find(job.session);
    if (session == nullptr) {
      continue;
    }
    const std::size_t end = std::min(job.next + std::min(budget, kRowsAPiece), job.ids.size());
    budget -= end - job.next;
    for (; job.next < end; ++job.next) {
      if (const auto row = RowOf(job.view, job.ids[job.next], clock); row.has_value()) {
        job.frame.Add(*row);
      }
    }
    if (job.next == job.ids.size()) {
      --session->owed_answers;
      sessions_->SendFrame(session, job.frame.Finish());
    } else {
      jobs_.push_back(std::move(job));
    }
  }
}

std::vector<std::uint64_t> ViewAnswers::IdsOf(protocol::View view) const {
  std::vector<std::uint64_t> ids;
  switch (view) {
    case protocol::View::kNodes:
      for (const auto& [id, node] : book_->directory().nodes()) {
        ids.push_back(id);
      }
      break;
    case protocol::View::kPools:
      for (const auto& [id, pool] : book_->directory().pools()) {
        ids.push_back(id);
      }
      break;
    case protocol::View::kConnections:
      for (const auto& [id, pool] : book_->directory().pools()) {
        for (int state = 0; state < kSlotStates; ++state) {
          for (const Slot& slot : pool->list(static_cast<SlotState>(state))) {
            ids.push_back(slot.id);
          }
        }
      }
      break;
    case protocol::View::kSessions:
      ids = sessions_->Attached();
      break;
    case protocol::View::kStats:
      ids.push_back(0);
      break;
  }
  return ids;
}

// Unset: it is gone.
std::optional<protocol::Row> ViewAnswers::RowOf(protocol::View view, std::uint64_t id,
                                                const WallClock& clock) {
  switch (view) {
    case protocol::View::kNodes: {
      const Node* node = book_->directory().FindNode(static_cast<NodeId>(id));
      return node == nullptr || node->obsolete ? std::nullopt
                                               : std::optional(NodeRow(*node, clock));
    }
    case protocol::View::kPools: {
      const Pool* pool = book_->directory().FindPool(id);
      return pool == nullptr ? std::nullopt : std::optional(PoolRow(*pool, clock));
    }
    case protocol::View::kConnections: {
      const Slot* slot = book_->FindSlot(id);
      return slot == nullptr ? std::nullopt
                             : std::optional(ConnectionRow(
                                   *slot, sessions_->PidOf(slot->lease.session), clock));
    }
    case protocol::View::kSessions:
      return SessionRow(id, clock);
    case protocol::View::kStats:
      return StatsRow(book_->counters(), stats_->since(), stats_->events(), clock);
  }
  return std::nullopt;
}

std::optional<protocol::Row> ViewAnswers::SessionRow(SessionId id, const WallClock& clock) {
  const Session* session = sessions_->Find(id);
  if (session == nullptr) {
    return std::nullopt;
  }
  protocol::Row row{std::to_string(session->pid), session->role_name,
                    std::to_string(leases_->CountUsed(*session))};
  if (const Ticket* ticket = book_->TicketOf(id); ticket != nullptr) {
    row.emplace_back(ticket->wants.front().pool->node->definition.name);
    row.push_back(TimestampText(ticket->arrived_at, clock));
  } else {
    row.resize(5);
  }
  row.push_back(TimestampText(session->attached_at, clock));
  return row;
}

// One point in time reads the same every time, unless the clock was set.
WallClock ViewAnswers::Wall(TimePoint now) {
  constexpr Duration kClockWasSet = std::chrono::milliseconds(10);
  const Duration wall =
      std::chrono::duration_cast<Duration>(std::chrono::system_clock::now().time_since_epoch());
  const Duration offset = wall - Now().time_since_epoch();
  if (std::chrono::abs(offset - wall_offset_) > kClockWasSet) {
    wall_offset_ = offset;
  }
  return {.steady = now, .unix_microseconds = (now.time_since_epoch() + wall_offset_).count()};
}

}  // namespace polarx
