// Which sessions wait for long for answers of nodes; when the nodes are asked who is in whose way
// there; and who is stopped where that is a circle. Owned by the main thread; time is an argument.
//
// A round: the nodes are asked about all who wait, then the coordinator about those who are in
// their way and do not wait for a node. If there is a circle, all are asked once more, and what is
// still a circle then, of the same waits, is broken. Nothing is asked while nobody waits.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "core/deadlock_graph.h"
#include "core/slot.h"
#include "core/stat_line.h"
#include "core/time.h"

namespace polarx {

// A session that has waited for longer than deadlock_timeout, or a borrower that may do so.
struct LongWait {
  SessionId session = 0;
  int process = 0;
  std::uint32_t number = 0;  // another number: another wait
  bool borrowed = false;     // the lease is a borrower's, who cannot tell what it waits for
  BegunAt begun = 0;         // the transaction
  TimePoint since{};         // it waits
  std::vector<LeaseId> leases;
};

// How nodes are asked, and what is done to whoever waits.
class DeadlockDriver {
 public:
  virtual ~DeadlockDriver() = default;
  // The leases that borrowers use for longer than `age`, one each.
  virtual std::vector<LongWait> Borrowed(Duration age, TimePoint now) = 0;
  // Asks the nodes of these leases who is in their way -> DeadlockWatch::OnAnswer with `round`,
  // once for each node that was asked. Returns how many, and whether that is all.
  struct Asked {
    int nodes = 0;
    bool all = true;
  };
  virtual Asked Ask(std::uint64_t round, const std::vector<LeaseId>& leases, TimePoint now) = 0;
  virtual void Stop(const LongWait& victim, const WaitCircle& circle) = 0;
  // Logs, once for each wait, who is in its way.
  virtual void Tell(const LongWait& wait, const std::vector<WaitEdge>& edges, TimePoint now) = 0;
};

class DeadlockWatch {
 public:
  // Both outlive this object.
  DeadlockWatch(DeadlockDriver* driver, EventCounters* counters)
      : driver_(driver), counters_(counters) {}

  // While it is off nothing is asked, and who waits is forgotten.
  void Apply(bool on, Duration timeout);
  // The session waits; without leases: it waits no more.
  void OnWait(LongWait wait);
  void Forget(SessionId session) { told_.erase(session); }

  // Who is in whose way on one node. What comes too late changes nothing. A holder of process 0 is
  // none of the pooler's sessions.
  void OnAnswer(std::uint64_t round, const std::vector<WaitEdge>& edges);
  // The processes about which the coordinator itself is to be asked; false: none.
  bool NextLocalWaits(std::vector<int>* processes);
  void AnswerLocalWaits(const std::vector<WaitEdge>& edges);

  // Begins a round, or goes on with one. In every turn.
  void Serve(TimePoint now);
  TimePoint NextDeadline() const;

 private:
  struct Watched {
    LongWait wait;
    Duration distance{};  // to the look after the next
    TimePoint next{};     // look
    bool logged = false;
  };
  enum class Stage { kNodes, kCoordinator, kJudgement };
  struct Round {
    std::uint64_t number = 0;  // another one for each question
    Stage stage = Stage::kNodes;
    TimePoint begun{};
    TimePoint deadline{};
    int unanswered = 0;
    bool whole = true;  // all nodes were asked and have answered
    std::vector<WaitEdge> edges;
    std::set<WaitEdge> first;  // the edges of the first look; empty: this is the first one
    std::vector<LeaseId> leases;
    std::map<LeaseId, std::pair<SessionId, std::uint32_t>> waits;  // and their numbers
  };

  template <typename Visit>
  void ForEach(Visit visit);
  Watched* Find(LeaseId lease);
  void LookForBorrowers(TimePoint now);
  void Begin(TimePoint now);
  void AskNodes(TimePoint now);
  void GoOn(TimePoint now);
  void DropChanged();
  void TellWaits(TimePoint now);
  std::map<int, BegunAt> Stoppable();
  void Judge(TimePoint now);
  void Stop(const WaitCircle& circle);
  void End(TimePoint now);

  DeadlockDriver* const driver_;
  EventCounters* const counters_;
  bool on_ = false;
  Duration timeout_ = std::chrono::seconds(1);
  std::map<SessionId, Watched> told_;
  std::map<LeaseId, Watched> borrowed_;
  std::optional<Round> round_;
  std::uint64_t next_round_ = 1;
  TimePoint look_at_ = kNever;  // the first of them, or earlier
  TimePoint not_before_{};      // rounds take a small part of the time
  TimePoint borrowers_at_{};    // are looked for
};

}  // namespace polarx
