// One attached backend: its socket with what has come in and what is to go out; owned by the main
// thread of the pooler worker.
#pragma once

#include <cstdint>
#include <deque>
#include <set>
#include <string>
#include <vector>

#include "core/parameter_sets.h"
#include "core/protocol.h"
#include "core/slot.h"
#include "core/time.h"
#include "engine/unique_fd.h"

namespace polarx {

class Session {
 public:
  Session(SessionId id, UniqueFd socket, int pid, TimePoint now);

  // Reads what has come (bounded, the rest keeps for the next turn) and cuts it into requests.
  // An error ends the session: a violation of the protocol, or the end of file (its sqlstate is
  // then kConnectionLost). Requests before the error are delivered.
  Status Receive(std::vector<protocol::Request>* requests);

  // Queues a reply; Flush sends it. `fds` are those of the slots lent; they stay open until the
  // lease is given back, which cannot be before the reply has gone out.
  void Send(const protocol::Reply& reply, std::vector<int> fds = {});
  // Sends what is queued. An error ends the session.
  Status Flush();
  bool HasUnsent() const { return !out_.empty(); }
  // Answers that do not go out because the session does not read.
  int unsent_answers() const { return unsent_answers_; }

  const SessionId id;
  const int pid;
  const TimePoint attached_at;
  const UniqueFd socket;

  std::string role_name;  // login role; "" until the attach was answered
  enum class Stage { kNew, kAsked, kAttached } stage = Stage::kNew;
  bool writing = false;  // the poller looks out for room to write
  bool ended = false;    // to be removed at the end of the turn
  std::set<LeaseId> leases;
  LeaseCell* cells = nullptr;  // of its process, for parked leases
  // The last request that was granted, with its leases: what a late Withdraw is about.
  std::uint32_t granted_request = 0;
  std::vector<LeaseId> granted;
  ToldSets told_sets;

 private:
  struct Outgoing {
    std::string bytes;
    std::vector<int> fds;
    bool answer = false;
  };
  std::string in_;
  std::deque<Outgoing> out_;
  int unsent_answers_ = 0;
};

}  // namespace polarx
