// The requests that wait: who is next, until when each may wait, and which one slots are kept for;
// owned by the main thread.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <unordered_map>
#include <vector>

#include "core/pool.h"
#include "core/settings.h"
#include "core/ticket.h"
#include "core/timer_queue.h"

namespace polarx {

// A ticket stands once in the queue of each pool that it wants a slot of, in order of arrival. The
// pools with tickets stand in the list of their node by the oldest of these, so that the tickets of
// a node are found in order of arrival, too. Tickets for the same pools stand in one group. Each
// ticket has a time at which it is answered.
//
// The token: a request for several nodes that has waited kKeepAfter may have slots kept for it, one
// of each pool that it wants, so that younger requests for single nodes do not overtake it for
// ever. One request has it at a time, the oldest one whose nodes have all given a slot back within
// kTurnover, and are neither paused nor held off.
class RequestQueue {
 public:
  static constexpr Duration kPauseLimit = std::chrono::seconds(10);
  static constexpr Duration kKeepAfter = std::chrono::milliseconds(100);
  // An attempt that began with a request, so long after it at most, tells its reason itself where
  // it ends so soon after the answer was due.
  static constexpr Duration kOwnAttempt = std::chrono::milliseconds(100);
  static constexpr Duration kAttemptEnds = std::chrono::milliseconds(500);
  static constexpr Duration kTurnover = std::chrono::seconds(1);

  RequestQueue() = default;
  RequestQueue(const RequestQueue&) = delete;
  RequestQueue& operator=(const RequestQueue&) = delete;

  // The ticket waits from now on; its session must not wait yet. Its answer is due after its
  // queue_timeout; without one (0) after the longest time for a connect or, if slots come back that
  // it waits for, for what the pooler itself asks a datanode.
  Ticket* Add(std::unique_ptr<Ticket> ticket, Duration queue_timeout, const Settings& settings,
              TimePoint now);
  // The ticket waits no longer. Returns it, for the answer.
  std::unique_ptr<Ticket> Remove(Ticket* ticket);
  // The ticket's wants are changed by `change()`; it keeps its turn.
  template <typename Change>
  void Rebind(Ticket* ticket, TimePoint now, Change change) {
    LeavePools(ticket);
    change();
    EnterPools(ticket);
    NotePauses(ticket, now);
  }
  // Which nodes are paused has changed. While one of its nodes is paused, a ticket without
  // queue_timeout waits kPauseLimit at most, and that time does not count.
  void NotePauses(TimePoint now);

  // The turn ends: those that have come in it and still wait have not been served at once.
  void EndTurn();

  // Returns null if the session does not wait.
  Ticket* Of(SessionId session) const;
  const std::map<TicketId, std::unique_ptr<Ticket>>& all() const { return tickets_; }
  bool empty() const { return tickets_.empty(); }

  // A ticket whose answer is due, another one at each call; null: none.
  Ticket* TakeExpired(TimePoint now);
  // When TakeExpired or PassToken has something to do.
  TimePoint NextTime() const { return std::min(answers_.Next(), token_at_); }

  // The ticket that slots are kept for; null: none.
  const Ticket* holder() const { return holder_; }
  // Gives the token to whom it belongs now. Returns true if that has changed.
  bool PassToken(TimePoint now);
  // How many idle slots of the pool the ticket may have, of those that are kept for nobody before
  // it.
  int IdleFor(const Ticket& ticket, const Pool& pool) const;
  // Has each of its pools an idle slot that it may have?
  bool HasAll(const Ticket& ticket) const;

  // Does the ticket, which stands in the pool's queue, lack a slot of another pool, too, and does
  // it not have the token?
  bool ComesLater(const Ticket& ticket, const Pool& pool) const;

  // A node of the ticket that is paused; null: none.
  static const Node* PausedNode(const Ticket& ticket);
  // The last one of the node's `count` oldest tickets for this node alone; 0: it has none.
  static TicketId LastWithin(const Node& node, int count);
  // So many tickets of the node are older.
  static int PlaceOn(const Node& node, const Ticket& ticket);

 private:
  static std::set<PoolId> KeyOf(const Ticket& ticket);
  TicketGroup* GroupOf(const Ticket& ticket);
  void EnterPools(Ticket* ticket);
  void LeavePools(Ticket* ticket);
  void NotePauses(Ticket* ticket, TimePoint now);
  static bool AwaitsSlots(const Ticket& ticket);
  static bool AwaitsAttempt(const Ticket& ticket);
  static TimePoint TurnoverUntil(const Ticket& ticket, TimePoint now);
  void Keep(int slots);

  std::map<TicketId, std::unique_ptr<Ticket>> tickets_;
  std::map<TicketId, Ticket*> several_;             // of these, those that want several nodes
  std::map<std::set<PoolId>, TicketGroup> groups_;  // of these, by their pools
  std::set<std::set<PoolId>> emptied_;              // groups, in this turn, and maybe again
  std::unordered_map<SessionId, Ticket*> by_session_;
  TimerQueue<TicketId> answers_;
  Ticket* holder_ = nullptr;
  TimePoint token_at_ = kNever;  // when the token is to be passed though nothing happens
  TicketId next_ = 1;
  TicketId next_waited_ = 1;  // those from this one on are new
};

}  // namespace polarx
