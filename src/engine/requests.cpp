// What sessions ask for, message by message; on the main thread.
#include "engine/requests.h"

#include <cassert>
#include <variant>

namespace polarx {
namespace {

// A session has one request under way, and a few that it gave up.
constexpr int kMostOpenAnswers = 256;

bool GivesBack(const Arrival& arrival) {
  return !arrival.request.has_value() ||
         std::holds_alternative<protocol::Release>(*arrival.request) ||
         std::holds_alternative<protocol::Cancel>(*arrival.request);
}

}  // namespace

// --- taking in ----------------------------------------------------------------------------------

void Requests::Take(std::vector<Arrival> arrivals, TimePoint now) {
  for (Arrival& arrival : arrivals) {
    if (arrival.request.has_value()) {
      NoteQuestions(*arrival.request, now);  // the first acquire comes with the attach
    }
    (GivesBack(arrival) ? returning_ : asking_).push_back(std::move(arrival));
  }
}

void Requests::NoteMapping(const MappingQuestion& pair, TimePoint now) {
  parts_.book->NoteUse(pair, now);
  questions_.push_back(pair);
}

void Requests::NoteQuestions(const protocol::Request& request, TimePoint now) {
  if (const auto* acquire = std::get_if<protocol::Acquire>(&request)) {
    for (const protocol::Wanted& wanted : acquire->wanted) {
      NoteMapping({wanted.node, wanted.role}, now);
    }
  } else if (const auto* ping = std::get_if<protocol::Ping>(&request)) {
    for (NodeId node : ping->nodes) {
      NoteMapping({node, ping->role}, now);
    }
  } else if (std::holds_alternative<protocol::Reload>(request)) {
    reload_asked_ = true;
  }
}

bool Requests::NextMapping(MappingQuestion* question) {
  while (!questions_.empty()) {
    *question = questions_.back();
    questions_.pop_back();
    if (parts_.book->directory().FindMapping(question->node, question->role) == nullptr) {
      return true;
    }
  }
  return false;
}

// --- serving ------------------------------------------------------------------------------------

void Requests::Serve(TimePoint now) {
  questions_.clear();
  parts_.leases->TakeBackLate(now);
  ServeAll(&returning_, now);
  ServeAll(&asking_, now);
}

void Requests::ServeAll(std::vector<Arrival>* arrivals, TimePoint now) {
  for (const Arrival& arrival : *arrivals) {
    Session* session = parts_.sessions->Find(arrival.session);
    if (session == nullptr) {
      continue;
    }
    if (arrival.request.has_value()) {
      ServeOne(session, *arrival.request, now);
    } else {
      End(session, now);
    }
  }
  arrivals->clear();
}

void Requests::ServeOne(Session* session, const protocol::Request& request, TimePoint now) {
  if (session->stage != Session::Stage::kAttached &&
      !std::holds_alternative<protocol::Attach>(request)) {
    Violation(session, "a request came before the attach", now);
  } else if (session->open_answers() > kMostOpenAnswers) {
    Violation(session, "it asks and does not read the answers", now);
  } else {
    std::visit([&](const auto& message) { Handle(session, message, now); }, request);
  }
}

void Requests::End(Session* session, TimePoint now) {
  parts_.sessions->Drop(session);
  parts_.watch->Forget(session->id);
  if (parts_.leases->End(session, now)) {
    parts_.fleet->Hurry();  // there is no session whose next steps a reset could delay
  }
}

// That session alone ends.
void Requests::Violation(Session* session, const char* what, TimePoint now) {
  if (what != nullptr) {
    parts_.sessions->LogViolation(*session, what);
    End(session, now);
  }
}

// --- leases -------------------------------------------------------------------------------------

void Requests::Handle(Session* session, const protocol::Attach& attach, TimePoint now) {
  if (attach.version != protocol::kVersion || attach.generation != generation_ ||
      session->stage != Session::Stage::kAsked) {
    parts_.sessions->Send(
        session, protocol::Failed{0, Status(sqlstate::kCannotConnectNow,
                                            "this pooler worker is not the one asked for")});
    End(session, now);
    return;
  }
  session->stage = Session::Stage::kAttached;
  parts_.sessions->Send(session, protocol::Attached{generation_});
}

void Requests::Handle(Session* session, const protocol::Acquire& acquire, TimePoint now) {
  Violation(session, parts_.leases->Acquire(session, acquire, now), now);
}

void Requests::Handle(Session* session, const protocol::Withdraw& withdraw, TimePoint now) {
  parts_.leases->Withdraw(session, withdraw, now);
}

void Requests::Handle(Session* session, const protocol::Release& release, TimePoint now) {
  Violation(session, parts_.leases->Release(session, release, now), now);
}

// What has been given back meanwhile is not cancelled.
void Requests::Handle(Session* session, const protocol::Cancel& cancel, TimePoint now) {
  if (const Slot* slot = parts_.leases->SlotOf(*session, cancel.lease); slot != nullptr) {
    parts_.slots->Cancel(*slot, cancel.number, now);
  }
}

// --- views and operation ------------------------------------------------------------------------

void Requests::Handle(Session* session, const protocol::Show& show, TimePoint now) {
  ++session->owed_answers;
  parts_.views->Begin(*session, show, now);
}

void Requests::Handle(Session* session, const protocol::Ping& ping, TimePoint now) {
  ++session->owed_answers;
  parts_.pings->Begin(session->id, ping.request, ping.nodes, ping.role,
                      parts_.book->settings().pooler_dn_set_timeout, now);
}

void Requests::Handle(Session* session, const protocol::Clean& clean, TimePoint now) {
  const int count = parts_.book->Clean(clean.node, clean.remote_user, now);
  parts_.sessions->Send(session, protocol::Done{clean.request, count});
}

// The pg side has read settings and catalog before this turn's requests are served.
void Requests::Handle(Session* session, const protocol::Reload& reload, TimePoint /*now*/) {
  parts_.sessions->Send(session, protocol::Done{reload.request, 0});
}

void Requests::Handle(Session* session, const protocol::Pause& pause, TimePoint now) {
  parts_.book->Pause(pause.node, pause.paused, now);
  parts_.sessions->Send(session, protocol::Done{pause.request, 0});
}

void Requests::Handle(Session* session, const protocol::ResetStats& reset, TimePoint now) {
  parts_.book->ResetStats();
  parts_.stats->Reset(now);
  parts_.sessions->Send(session, protocol::Done{reset.request, 0});
}

void Requests::Handle(Session* session, const protocol::Check& check, TimePoint /*now*/) {
  const bool matches = parts_.book->directory().Matches(check.nodes);
  parts_.sessions->Send(session, protocol::Done{check.request, matches ? 1 : 0});
}

// Recalls were sent when the catalog was taken in, before this turn's requests.
void Requests::Handle(Session* session, const protocol::Confirm& confirm, TimePoint /*now*/) {
  parts_.sessions->Send(session, protocol::Done{confirm.request, 0});
}

void Requests::Handle(Session* /*session*/, const protocol::PartlyCommitted& /*note*/,
                      TimePoint /*now*/) {
  ++parts_.stats->events()->partial_commits;
}

void Requests::Handle(Session* session, const protocol::Awaits& awaits, TimePoint now) {
  parts_.watch->OnWait(parts_.deadlocks->WaitOf(*session, awaits, now));
}

}  // namespace polarx
