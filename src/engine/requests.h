// What sessions ask for: each message has its handler, and each request one answer, now or later;
// on the main thread.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "core/deadlock_watch.h"
#include "core/pool_book.h"
#include "core/protocol.h"
#include "engine/ping_desk.h"
#include "engine/pooler_deadlocks.h"
#include "engine/questions.h"
#include "engine/session_leases.h"
#include "engine/session_server.h"
#include "engine/slot_orders.h"
#include "engine/stat_printer.h"
#include "engine/view_answers.h"
#include "engine/worker_fleet.h"

namespace polarx {

class Requests {
 public:
  // Who does what is asked for; all outlive this object.
  struct Parts {
    PoolBook* book;
    SessionServer* sessions;
    SessionLeases* leases;
    SlotOrders* slots;
    WorkerFleet* fleet;
    PingDesk* pings;
    ViewAnswers* views;
    StatPrinter* stats;
    PoolerDeadlocks* deadlocks;
    DeadlockWatch* watch;
  };
  // `generation`: of this pooler worker; sessions that ask for another one are sent away.
  Requests(const Parts& parts, std::uint64_t generation) : parts_(parts), generation_(generation) {}

  // Takes what has come; Serve answers it. What the pg side has to say first is asked between.
  void Take(std::vector<Arrival> arrivals, TimePoint now);
  // Returns a mapping that the book does not know and a request needs; false: there is no more.
  bool NextMapping(MappingQuestion* question);
  bool TakeReload() { return std::exchange(reload_asked_, false); }

  // Handles what has come: first what gives leases back, which may serve a request of this turn.
  void Serve(TimePoint now);

 private:
  void NoteMapping(const MappingQuestion& pair, TimePoint now);
  void NoteQuestions(const protocol::Request& request, TimePoint now);
  void ServeAll(std::vector<Arrival>* arrivals, TimePoint now);
  void ServeOne(Session* session, const protocol::Request& request, TimePoint now);
  void End(Session* session, TimePoint now);
  void Violation(Session* session, const char* what, TimePoint now);  // null: none

  // A message is for one of these.
  void Handle(Session* session, const protocol::Attach& attach, TimePoint now);
  void Handle(Session* session, const protocol::Acquire& acquire, TimePoint now);
  void Handle(Session* session, const protocol::Withdraw& withdraw, TimePoint now);
  void Handle(Session* session, const protocol::Release& release, TimePoint now);
  void Handle(Session* session, const protocol::Cancel& cancel, TimePoint now);
  void Handle(Session* session, const protocol::Show& show, TimePoint now);
  void Handle(Session* session, const protocol::Ping& ping, TimePoint now);
  void Handle(Session* session, const protocol::Clean& clean, TimePoint now);
  void Handle(Session* session, const protocol::Reload& reload, TimePoint now);
  void Handle(Session* session, const protocol::Pause& pause, TimePoint now);
  void Handle(Session* session, const protocol::ResetStats& reset, TimePoint now);
  void Handle(Session* session, const protocol::Check& check, TimePoint now);
  void Handle(Session* session, const protocol::Confirm& confirm, TimePoint now);
  void Handle(Session* session, const protocol::PartlyCommitted& note, TimePoint now);
  void Handle(Session* session, const protocol::Awaits& awaits, TimePoint now);

  const Parts parts_;
  const std::uint64_t generation_;
  std::vector<Arrival> returning_;  // releases, cancels, ends of sessions
  std::vector<Arrival> asking_;     // everything else
  std::vector<MappingQuestion> questions_;
  bool reload_asked_ = false;
};

}  // namespace polarx
