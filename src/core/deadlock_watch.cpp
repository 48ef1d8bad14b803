// Rounds of questions about who waits for whom; on the main thread.
#include "core/deadlock_watch.h"

#include <algorithm>

namespace polarx {
namespace {

// A node that has not answered by then is left out of the round.
constexpr Duration kAnswerLimit = std::chrono::seconds(1);
// The distance between two looks at one wait grows to so many times deadlock_timeout.
constexpr int kMostDistances = 16;
// A round is followed by a rest of so many times its length, and a part of deadlock_timeout.
constexpr int kRest = 20;
constexpr int kLeastRest = 10;
constexpr Duration kBrief = std::chrono::milliseconds(50);  // a longer one was spent waiting

}  // namespace

template <typename Visit>
void DeadlockWatch::ForEach(Visit visit) {
  for (auto& [session, watched] : told_) {
    visit(watched);
  }
  for (auto& [lease, watched] : borrowed_) {
    visit(watched);
  }
}

void DeadlockWatch::Apply(bool on, Duration timeout) {
  on_ = on;
  timeout_ = std::max<Duration>(timeout, std::chrono::milliseconds(1));
  if (!on_) {
    told_.clear();
    borrowed_.clear();
    round_.reset();
  }
}

void DeadlockWatch::OnWait(LongWait wait) {
  if (wait.leases.empty() || !on_) {
    told_.erase(wait.session);
    return;
  }
  look_at_ = TimePoint{};
  Watched& watched = told_[wait.session];
  watched = {.wait = std::move(wait), .distance = timeout_};
}

// A session has one told wait and a borrower's lease is none of its leases.
DeadlockWatch::Watched* DeadlockWatch::Find(LeaseId lease) {
  if (const auto found = borrowed_.find(lease); found != borrowed_.end()) {
    return &found->second;
  }
  const auto wait = round_->waits.find(lease);
  const auto found = wait == round_->waits.end() ? told_.end() : told_.find(wait->second.first);
  const bool same = found != told_.end() && found->second.wait.number == wait->second.second;
  return same ? &found->second : nullptr;
}

void DeadlockWatch::LookForBorrowers(TimePoint now) {
  if (now < borrowers_at_) {
    return;
  }
  borrowers_at_ = now + timeout_;
  std::map<LeaseId, Watched> earlier = std::exchange(borrowed_, {});
  for (LongWait& wait : driver_->Borrowed(timeout_, now)) {
    const LeaseId lease = wait.leases.front();
    const auto found = earlier.find(lease);
    if (found != earlier.end() && found->second.wait.number == wait.number) {
      borrowed_.insert(earlier.extract(found));
    } else {
      look_at_ = TimePoint{};
      borrowed_[lease] = {.wait = std::move(wait), .distance = timeout_};
    }
  }
}

// --- a round ------------------------------------------------------------------------------------

void DeadlockWatch::Serve(TimePoint now) {
  if (!on_) {
    return;
  }
  LookForBorrowers(now);
  if (round_.has_value()) {
    GoOn(now);
  } else if (now >= std::max(look_at_, not_before_)) {
    Begin(now);
  }
}

TimePoint DeadlockWatch::NextDeadline() const {
  if (!round_.has_value()) {
    return on_ && look_at_ != kNever ? std::max(look_at_, not_before_) : kNever;
  }
  const bool awaits = round_->stage == Stage::kNodes && round_->unanswered > 0;
  return awaits ? round_->deadline : TimePoint{};
}

// All who wait are asked about when one of them is due.
void DeadlockWatch::Begin(TimePoint now) {
  look_at_ = kNever;
  Round round;
  round.begun = now;
  ForEach([&](const Watched& watched) {
    look_at_ = std::min(look_at_, watched.next);
    for (const LeaseId lease : watched.wait.leases) {
      round.waits[lease] = {watched.wait.session, watched.wait.number};
      round.leases.push_back(lease);
    }
  });
  if (now >= look_at_) {
    round_ = std::move(round);
    AskNodes(now);
  }
}

void DeadlockWatch::AskNodes(TimePoint now) {
  round_->number = next_round_++;
  round_->stage = Stage::kNodes;
  round_->deadline = now + kAnswerLimit;
  round_->edges.clear();
  const DeadlockDriver::Asked asked = driver_->Ask(round_->number, round_->leases, now);
  round_->unanswered = asked.nodes;
  round_->whole = round_->whole && asked.all;
  counters_->deadlock_checks += static_cast<std::uint64_t>(asked.nodes);
}

void DeadlockWatch::OnAnswer(std::uint64_t round, const std::vector<WaitEdge>& edges) {
  if (round_.has_value() && round_->number == round && round_->stage == Stage::kNodes) {
    round_->edges.insert(round_->edges.end(), edges.begin(), edges.end());
    --round_->unanswered;
  }
}

bool DeadlockWatch::NextLocalWaits(std::vector<int>* processes) {
  if (!round_.has_value() || round_->stage != Stage::kCoordinator) {
    return false;
  }
  std::set<int> asked;
  for (const WaitEdge& edge : round_->edges) {
    asked.insert(edge.holder);
  }
  asked.erase(0);
  for (const auto& [session, watched] : told_) {
    asked.erase(watched.wait.process);
  }
  processes->assign(asked.begin(), asked.end());
  round_->stage = Stage::kJudgement;
  return !processes->empty();
}

void DeadlockWatch::AnswerLocalWaits(const std::vector<WaitEdge>& edges) {
  if (round_.has_value()) {
    round_->edges.insert(round_->edges.end(), edges.begin(), edges.end());
  }
}

void DeadlockWatch::GoOn(TimePoint now) {
  if (round_->stage == Stage::kNodes && round_->unanswered > 0 && now < round_->deadline) {
    return;
  }
  if (round_->stage == Stage::kNodes) {
    round_->whole = round_->whole && round_->unanswered == 0;
    DropChanged();
    if (round_->edges.empty()) {
      End(now);
    } else {
      round_->stage = Stage::kCoordinator;
    }
  } else if (round_->stage == Stage::kJudgement) {
    Judge(now);
  }
}

// Whoever has gone on meanwhile waits no more, or for something else.
void DeadlockWatch::DropChanged() {
  std::erase_if(round_->edges,
                [this](const WaitEdge& edge) { return Find(edge.waiting_lease) == nullptr; });
}

void DeadlockWatch::TellWaits(TimePoint now) {
  std::map<Watched*, std::vector<WaitEdge>> by_wait;
  for (const WaitEdge& edge : round_->edges) {
    if (edge.waiting_lease != 0) {
      by_wait[Find(edge.waiting_lease)].push_back(edge);
    }
  }
  for (const auto& [watched, edges] : by_wait) {
    if (watched != nullptr && !std::exchange(watched->logged, true)) {
      driver_->Tell(watched->wait, edges, now);
    }
  }
}

// What waits on the coordinator can be stopped by nobody but PostgreSQL.
std::map<int, BegunAt> DeadlockWatch::Stoppable() {
  std::map<int, BegunAt> begun;
  for (const WaitEdge& edge : round_->edges) {
    if (const Watched* watched = Find(edge.waiting_lease); watched != nullptr) {
      begun[edge.waiter] = watched->wait.begun;
    }
  }
  for (const WaitEdge& edge : round_->edges) {
    if (edge.waiting_lease == 0) {
      begun.erase(edge.waiter);
    }
  }
  return begun;
}

void DeadlockWatch::Judge(TimePoint now) {
  TellWaits(now);
  const bool first = round_->first.empty();
  if (!first) {
    std::erase_if(round_->edges,
                  [this](const WaitEdge& edge) { return !round_->first.contains(edge); });
  }
  const std::vector<WaitCircle> circles = FindCircles(round_->edges, Stoppable());
  if (first && !circles.empty()) {
    round_->first = {round_->edges.begin(), round_->edges.end()};
    AskNodes(now);
    return;
  }
  for (const WaitCircle& circle : circles) {
    Stop(circle);
  }
  End(now);
}

void DeadlockWatch::Stop(const WaitCircle& circle) {
  for (const WaitEdge& edge : circle.edges) {
    Watched* watched = edge.waiter == circle.victim ? Find(edge.waiting_lease) : nullptr;
    if (watched != nullptr) {
      ++counters_->deadlocks;
      driver_->Stop(watched->wait, circle);
      return;
    }
  }
}

// Where not all could be told, the next look is not farther away than the last one.
void DeadlockWatch::End(TimePoint now) {
  look_at_ = kNever;
  ForEach([&](Watched& watched) {
    const auto asked = round_->waits.find(watched.wait.leases.front());
    if (asked != round_->waits.end() && asked->second.second == watched.wait.number &&
        watched.next <= round_->begun) {
      watched.next = now + watched.distance;
      if (round_->whole) {
        watched.distance = std::min(2 * watched.distance, kMostDistances * timeout_);
      }
    }
    look_at_ = std::min(look_at_, watched.next);
  });
  not_before_ =
      now + std::max(timeout_ / kLeastRest, kRest * std::min(now - round_->begun, kBrief));
  round_.reset();
}

}  // namespace polarx
