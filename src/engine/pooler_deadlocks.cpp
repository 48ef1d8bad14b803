// Nodes are asked here who is in whose way, and sessions that wait for each other are stopped; on
// the main thread.
#include "engine/pooler_deadlocks.h"

#include <algorithm>
#include <cstdio>
#include <set>
#include <utility>

namespace polarx {
namespace {

std::string Seconds(Duration time) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.1f", std::chrono::duration<double>(time).count());
  return text;
}

}  // namespace

// --- who waits ----------------------------------------------------------------------------------

LongWait PoolerDeadlocks::WaitOf(const Session& session, const protocol::Awaits& awaits,
                                 TimePoint now) const {
  LongWait wait{.session = session.id,
                .process = session.pid,
                .number = awaits.number,
                .begun = awaits.begun_us,
                .since = now - Duration(book_->settings().deadlock_timeout),
                .leases = {}};
  for (const LeaseId lease : awaits.leases) {
    if (leases_->SlotOf(session, lease) != nullptr) {
      wait.leases.push_back(lease);
    }
  }
  return wait;
}

std::vector<LongWait> PoolerDeadlocks::Borrowed(Duration age, TimePoint now) {
  const auto time_of = [now](std::uint32_t clock_ms) {
    return now -
           std::chrono::milliseconds(static_cast<std::int32_t>(parking::ClockMs(now) - clock_ms));
  };
  std::vector<LongWait> waits;
  for (const auto& [id, pool] : book_->directory().pools()) {
    for (const Slot& slot : pool->list(SlotState::kLeased)) {
      const LeaseCell* cell = slot.parking.cell;
      const std::uint32_t since = cell != nullptr ? cell->borrowed_ms.load() : 0;
      if (since != 0 && now - time_of(since) >= age && !slot.parked()) {
        waits.push_back({.session = slot.lease.session,
                         .process = sessions_->PidOf(slot.lease.session),
                         .number = since,
                         .borrowed = true,
                         .begun = cell->begun_us.load(),
                         .since = time_of(since),
                         .leases = {slot.lease.id}});
      }
    }
  }
  return waits;
}

// --- questions ----------------------------------------------------------------------------------

PoolerDeadlocks::Place PoolerDeadlocks::PlaceOf(const Node& node) {
  const NodeDefinition& definition = node.definition;
  return (definition.hostaddr.empty() ? definition.host : definition.hostaddr) + ":" +
         std::to_string(definition.port);
}

PoolerDeadlocks::Question PoolerDeadlocks::AboutPlace(std::uint64_t round,
                                                      const Place& place) const {
  Question question{.round = round, .place = place, .lent = {}};
  for (const auto& [id, pool] : book_->directory().pools()) {
    if (PlaceOf(*pool->node) != place) {
      continue;
    }
    for (const Slot& slot : pool->list(SlotState::kLeased)) {
      question.lent[slot.connection.remote_pid] = {.lease = slot.lease.id,
                                                   .process = sessions_->PidOf(slot.lease.session),
                                                   .node = pool->node->definition.name};
    }
  }
  return question;
}

// Returns a slot that is set apart for a question; null: none is idle.
Slot* PoolerDeadlocks::IdleSlotAt(const Place& place, TimePoint now) {
  for (const auto& [id, pool] : book_->directory().pools()) {
    if (pool->count(SlotState::kIdle) > 0 && PlaceOf(*pool->node) == place) {
      if (Slot* slot = book_->TakeForPing(pool.get(), now); slot != nullptr) {
        return slot;
      }
    }
  }
  return nullptr;
}

// A server that owes an answer is not asked again: it would cost it one connection after the other.
DeadlockDriver::Asked PoolerDeadlocks::Ask(std::uint64_t round, const std::vector<LeaseId>& leases,
                                           TimePoint now) {
  std::map<Place, std::set<int>> waiting;
  for (const LeaseId lease : leases) {
    if (const Slot* slot = book_->FindLease(lease); slot != nullptr) {
      waiting[PlaceOf(*slot->pool->node)].insert(slot->connection.remote_pid);
    }
  }
  Asked asked;
  for (const auto& [place, processes] : waiting) {
    const bool owes = std::any_of(
        questions_.begin(), questions_.end(),
        [&place = place](const auto& question) { return question.second.place == place; });
    Slot* slot = owes ? nullptr : IdleSlotAt(place, now);
    if (slot == nullptr) {
      asked.all = false;
      continue;
    }
    Question question = AboutPlace(round, place);
    std::vector<int> lent;
    for (const auto& [process, holder] : question.lent) {
      lent.push_back(process);
    }
    slots_->Ask(slot, next_, BlockingStatement({processes.begin(), processes.end()}, lent));
    questions_.emplace(next_++, std::move(question));
    ++asked.nodes;
  }
  return asked;
}

void PoolerDeadlocks::Deliver(DeadlockWatch* watch) {
  for (const SlotOrders::AskedValue& answer : slots_->TakeValues()) {
    const auto found = questions_.find(answer.ask);
    const Question question = std::move(found->second);
    questions_.erase(found);
    watch->OnAnswer(question.round,
                    EdgesOf(question, ParseBlockingAnswer(answer.value.value_or(""))));
  }
}

// Is it the lease that it was when the node was asked?
bool PoolerDeadlocks::IsLent(const Lent& lent) const {
  const Slot* slot = book_->FindLease(lent.lease);
  return slot != nullptr && sessions_->PidOf(slot->lease.session) == lent.process;
}

std::vector<WaitEdge> PoolerDeadlocks::EdgesOf(const Question& question,
                                               const BlockingAnswer& answer) const {
  std::vector<WaitEdge> edges;
  for (const auto& [waiter, holder] : answer.blocked) {
    const auto waits = question.lent.find(waiter);
    const auto holds = question.lent.find(holder);
    if (waits == question.lent.end() || !IsLent(waits->second)) {
      continue;
    }
    WaitEdge edge{.waiter = waits->second.process,
                  .node = waits->second.node,
                  .remote_waiter = waiter,
                  .remote_holder = holder,
                  .waiting_lease = waits->second.lease};
    if (holds == question.lent.end()) {
      if (std::find(answer.neighbours.begin(), answer.neighbours.end(), holder) !=
          answer.neighbours.end()) {
        edges.push_back(std::move(edge));
      }
    } else if (IsLent(holds->second)) {
      edge.holder = holds->second.process;
      edge.holding_lease = holds->second.lease;
      edges.push_back(std::move(edge));
    }
  }
  return edges;
}

// --- what comes of it ---------------------------------------------------------------------------

// The session raises the error, and its rollback cancels what it waits for. A borrower finds its
// statement cancelled.
void PoolerDeadlocks::Stop(const LongWait& victim, const WaitCircle& circle) {
  const std::string detail = DescribeCircle(circle);
  log_->Push(LogSeverity::kLog,
             "deadlock detected: process " + std::to_string(victim.process) + " is to give up",
             detail);
  if (!victim.borrowed) {
    if (Session* session = sessions_->Find(victim.session); session != nullptr) {
      sessions_->Send(session, protocol::Deadlocked{victim.number, detail});
    }
  } else if (const Slot* slot = book_->FindLease(victim.leases.front());
             slot != nullptr && slot->state == SlotState::kLeased) {
    slots_->Cancel(*slot, 0, Now());
  }
}

void PoolerDeadlocks::Tell(const LongWait& wait, const std::vector<WaitEdge>& edges,
                           TimePoint now) {
  constexpr std::size_t kMostHolders = 3;
  std::string detail;
  for (std::size_t i = 0; i < std::min(edges.size(), kMostHolders); ++i) {
    const WaitEdge& edge = edges[i];
    detail += (detail.empty() ? "Its process " : "\nIts process ") +
              std::to_string(edge.remote_waiter) + " on datanode \"" + edge.node +
              "\" is blocked by process " + std::to_string(edge.remote_holder) + " there, ";
    if (edge.holder == 0) {
      detail +=
          "which is not the pooler's but has a client on this server: maybe a foreign table of "
          "the same session.";
    } else if (edge.holder == edge.waiter) {
      detail += "which is another connection of its own.";
    } else {
      detail += "a connection of process " + std::to_string(edge.holder) + ".";
    }
  }
  log_->Push(LogSeverity::kLog,
             "process " + std::to_string(wait.process) + " has waited on datanode \"" +
                 edges.front().node + "\" for a lock for " + Seconds(now - wait.since) + " s",
             detail);
}

}  // namespace polarx
