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

  // Reads what has come (a bounded part, the rest keeps for the next turn) and cuts it into
  // requests. An error ends the session: it broke the protocol, or its end of file has come (the
  // sqlstate is then kConnectionLost). Requests before the error are delivered.
  Status Receive(std::vector<protocol::Request>* requests);

  // Queues a reply; Flush sends it. `fds` are those of the slots lent; they stay open until the
  // lease is given back, which cannot be before they have gone out or the reply was replaced.
  void Send(const protocol::Reply& reply, std::vector<int> fds = {});
  // Queues a reply that is encoded already.
  void SendFrame(std::string frame);

  enum class Flushed {
    kAll,      // nothing is left
    kFull,     // something is left, for when the socket has room
    kTryLater  // this user has too many descriptors under way: no event tells when that is over
  };
  // Sends what goes of what is queued, a bounded part. An error ends the session.
  Result<Flushed> Flush();
  bool HasUnsent() const { return !out_.empty(); }
  // Answers that do not go out because the session does not read, and those under way.
  int open_answers() const { return unsent_answers_ + owed_answers; }

  // How much of the Granted of `request` has gone out, by its descriptors.
  enum class GrantSent { kNothing, kSome, kAll };
  GrantSent SentOfGrant(std::uint32_t request) const;
  // Puts `reply` in the place of the Granted of `request`, of which nothing has gone out.
  void ReplaceGrant(std::uint32_t request, const protocol::Reply& reply);

  const SessionId id;
  const int pid;
  const TimePoint attached_at;
  const UniqueFd socket;

  std::string role_name;  // login role; "" until the attach was answered
  enum class Stage { kNew, kAsked, kAttached } stage = Stage::kNew;
  int owed_answers = 0;  // views and pings under way; who makes the answer takes it off

  // What SessionServer alone uses.
  bool awaits_room = false;  // the poller looks out for room to write
  bool awaits_time = false;  // its turn to send comes again by time
  bool ended = false;        // to be removed at the end of the turn

  // What SessionLeases alone uses.
  std::set<LeaseId> leases;
  LeaseCell* cells = nullptr;         // of its process, for parked leases; null: it cannot park
  std::uint32_t granted_request = 0;  // the last one that was granted
  std::vector<LeaseId> granted;       // by it, and not released so far
  ToldSets told_sets;

 private:
  struct Outgoing {
    std::string bytes;
    std::vector<int> fds;
    std::uint32_t request = 0;  // of a Granted
    bool answer = true;
    std::size_t bytes_sent = 0;
    std::size_t fds_sent = 0;
  };
  // Its place in out_; that has no such place: there is none.
  std::size_t PlaceOfGrant(std::uint32_t request) const;

  std::string in_;
  std::deque<Outgoing> out_;
  int unsent_answers_ = 0;
};

}  // namespace polarx
