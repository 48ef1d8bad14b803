// How the pooler asks nodes who is in whose way, over idle slots, and what it does to sessions that
// wait for each other; on the main thread.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/deadlock_watch.h"
#include "core/pool_book.h"
#include "core/protocol.h"
#include "engine/blocking_query.h"
#include "engine/log_queue.h"
#include "engine/session_leases.h"
#include "engine/session_server.h"
#include "engine/slot_orders.h"

namespace polarx {

class PoolerDeadlocks : public DeadlockDriver {
 public:
  // All outlive this object.
  PoolerDeadlocks(PoolBook* book, SlotOrders* slots, SessionServer* sessions, SessionLeases* leases,
                  LogQueue* log)
      : book_(book), slots_(slots), sessions_(sessions), leases_(leases), log_(log) {}

  // What a session has told, without leases that are not its own.
  LongWait WaitOf(const Session& session, const protocol::Awaits& awaits, TimePoint now) const;
  // Hands the answers that have come to the watch.
  void Deliver(DeadlockWatch* watch);

  std::vector<LongWait> Borrowed(Duration age, TimePoint now) override;
  Asked Ask(std::uint64_t round, const std::vector<LeaseId>& leases, TimePoint now) override;
  void Stop(const LongWait& victim, const WaitCircle& circle) override;
  void Tell(const LongWait& wait, const std::vector<WaitEdge>& edges, TimePoint now) override;

 private:
  // A server, whichever nodes lead to it: by host and port, since a process belongs to a server.
  using Place = std::string;
  struct Lent {
    LeaseId lease = 0;
    int process = 0;  // of the session
    std::string node;
  };
  // A question under way.
  struct Question {
    std::uint64_t round = 0;
    Place place;
    std::map<int, Lent> lent;  // by process of the server
  };

  static Place PlaceOf(const Node& node);
  Question AboutPlace(std::uint64_t round, const Place& place) const;
  Slot* IdleSlotAt(const Place& place, TimePoint now);
  std::vector<WaitEdge> EdgesOf(const Question& question, const BlockingAnswer& answer) const;
  bool IsLent(const Lent& lent) const;

  PoolBook* const book_;
  SlotOrders* const slots_;
  SessionServer* const sessions_;
  SessionLeases* const leases_;
  LogQueue* const log_;
  std::map<AskId, Question> questions_;
  AskId next_ = 1;
};

}  // namespace polarx
