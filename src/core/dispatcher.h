// Whose turn it is: the pools to look at in this turn, and the requests of their nodes, oldest
// first; owned by the main thread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <queue>
#include <utility>
#include <vector>

#include "core/pool.h"
#include "core/request_queue.h"
#include "core/timer_queue.h"

namespace polarx {

// A dispatch goes through the requests of the nodes where something has happened, in order of
// arrival over all of them. Each turn uses up a request, an idle slot or a permission, or finds
// that nothing is left for the pool, which is over then; a node that has nothing to give is over as
// a whole. Requests for the same pools stand in one group: where the first one lacks something, so
// do those behind it, and these have no turn. So a dispatch takes as many turns as there are slots
// that are not in use, and groups, and not as requests wait.
//
// A request for several nodes comes after those for single ones while it lacks a slot elsewhere,
// too: nothing is kept for it, unless it has the token.
class Dispatcher {
 public:
  // What is done for those whose turn has come.
  struct Supply {
    std::function<void(Pool*)> begin;           // the pool's first turn in this dispatch comes
    std::function<bool(Ticket*, Pool*)> serve;  // false: nothing is left for those behind it
    std::function<void(Ticket*)> grant;         // it has all that it wants
  };

  explicit Dispatcher(RequestQueue* queue) : queue_(queue) {}
  Dispatcher(const Dispatcher&) = delete;
  Dispatcher& operator=(const Dispatcher&) = delete;

  // --- what is to be looked at ------------------------------------------------------------------
  void Mark(Pool* pool);
  void MarkAll(const Node& node);         // its pools
  void MarkWaiting(const Node& node);     // its pools with requests
  void MarkWanted(const Ticket* ticket);  // null: nothing
  // The ticket waits no longer; what it stood in the way of is looked at again.
  std::unique_ptr<Ticket> TakeOut(Ticket* ticket);
  void WakeAt(const Pool& pool, TimePoint at) { sleepers_.SetEarlier(pool.id, at); }
  // The pools whose time has come, one at each call; nothing: no more.
  std::optional<PoolId> TakeDue(TimePoint now) { return sleepers_.TakeDue(now); }
  TimePoint NextTime() const { return sleepers_.Next(); }

  // The pool lacks nothing but a descriptor: it is looked at again whenever something has happened.
  void NoteStarving(Pool* pool) { starving_.emplace(pool->id, pool); }
  bool starving() const { return !starving_.empty(); }
  // Something has happened that may have made room.
  void WakeStarving();
  // Changes whenever something has.
  std::uint64_t happened() const { return happened_; }

  // The pool waits until its node has room for another connect or warm-up. Those of a node wait in
  // turn, so that not all of them are looked at whenever there is room for one.
  void HoldUp(Pool* pool, HeldUp wait);
  // If there is room for the first one of those that still wait, `count` of them are marked.
  template <typename MayGoOn, typename StillWaits>
  void MarkHeldUp(Node* node, HeldUp wait, int count, MayGoOn may_go_on, StillWaits still_waits) {
    for (const Pool* first = FirstHeldUp(*node, wait); first != nullptr;
         first = FirstHeldUp(*node, wait)) {
      if (may_go_on(*first)) {
        for (; count > 0 && FirstHeldUp(*node, wait) != nullptr; --count) {
          Mark(ReleaseFirst(node, wait));
        }
        return;
      }
      if (still_waits(*first)) {
        return;
      }
      ReleaseFirst(node, wait);
    }
  }
  // The pool is gone. Nothing is to be done for it.
  void Forget(Pool* pool);

  // --- a dispatch -------------------------------------------------------------------------------
  // Returns the pools that are marked, once each; they are not any more.
  std::vector<Pool*> TakeMarked();
  bool has_marked() const { return !marked_.empty(); }
  // Returns the pools that were looked at: those, and others of their nodes.
  std::vector<Pool*> Dispatch(const std::vector<Pool*>& round, const Supply& supply);
  std::uint64_t number() const { return dispatch_; }  // of the dispatch
  std::uint64_t turns() const { return turns_; }      // that requests have had so far

 private:
  // By ticket, then pool, for a ticket for several nodes has a turn in each of its pools.
  struct Turn {
    TicketId ticket;
    Pool* pool;
    TicketGroup* group;
    bool operator<(const Turn& other) const {
      return std::pair(ticket, pool->id) > std::pair(other.ticket, other.pool->id);
    }
  };
  struct Course;

  static Pool* FirstHeldUp(const Node& node, HeldUp wait);
  static Pool* ReleaseFirst(Node* node, HeldUp wait);
  void Enter(Node* node, Course* course) const;
  void TakeTurn(const Turn& turn, Course* course);
  static void AddBehind(const Turn& turn, std::priority_queue<Turn>* turns);

  RequestQueue* const queue_;
  std::vector<Pool*> marked_;
  TimerQueue<PoolId> sleepers_;
  std::map<PoolId, Pool*> starving_;
  std::uint64_t happened_ = 0;
  std::uint64_t dispatch_ = 0;
  std::uint64_t turns_ = 0;
};

}  // namespace polarx
