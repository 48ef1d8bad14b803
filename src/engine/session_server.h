// The sockets of sessions: who is let in, what has come from them, what is to go out to them; on
// the main thread.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/protocol.h"
#include "engine/descriptor_budget.h"
#include "engine/listener.h"
#include "engine/log_queue.h"
#include "engine/poller.h"
#include "engine/questions.h"
#include "engine/session.h"

namespace polarx {

// What a session has sent.
struct Arrival {
  SessionId session = 0;
  std::optional<protocol::Request> request;  // unset: it has hung up, or broken the protocol
};

class SessionServer {
 public:
  // `listener`, `user`: as of Listener. The others outlive the server.
  SessionServer(UniqueFd listener, uid_t user, Poller* poller, LogQueue* log,
                DescriptorBudget* budget);
  // Events of the listener carry `listener_key`, those of a session its id. Returns false where the
  // system refuses.
  [[nodiscard]] bool Start(std::uint64_t listener_key) { return listener_.Watch(listener_key); }

  // --- what comes in ---------------------------------------------------------------------------
  void Accept(TimePoint now);                              // the listener is readable
  void OnEvents(SessionId session, std::uint32_t events);  // of a session's socket
  // What has come since the last call, in order of arrival.
  std::vector<Arrival> TakeArrivals() { return std::exchange(arrivals_, {}); }

  // The processes that the pg side has to look up; false: there is no more.
  bool NextAttach(AttachQuestion* question);
  // `role_name`: the login role of that process. Not ok: the session is told and dropped. `cells`:
  // kCellsOfASession of that process; null: it cannot park leases.
  void AnswerAttach(SessionId session, const Status& status, std::string_view role_name,
                    LeaseCell* cells);

  // --- sessions --------------------------------------------------------------------------------
  Session* Find(SessionId session);  // null: it is gone, or was dropped
  std::vector<SessionId> Attached() const;
  int PidOf(SessionId session) const;  // 0: it is gone

  // --- what goes out, at the next Flush --------------------------------------------------------
  void Send(Session* session, const protocol::Reply& reply, std::vector<int> fds = {});
  void SendFrame(Session* session, std::string frame);
  // Ends the session with this turn: what was sent to it still goes out, as far as it goes at once.
  void Drop(Session* session);
  void LogViolation(const Session& session, std::string_view what);

  // --- time ------------------------------------------------------------------------------------
  // Drops who has not attached in time, listens again, calls up those that were to be tried later.
  void Expire(TimePoint now);
  // Sends what goes, and removes those that were dropped. The last step of a turn.
  void Flush(TimePoint now);
  TimePoint NextDeadline() const;

 private:
  void Admit(Guest guest, TimePoint now);
  void Read(Session* session);
  void FlushOne(Session* session, TimePoint now);
  Session* FindAny(SessionId session) const;

  Poller* const poller_;
  LogQueue* const log_;
  DescriptorBudget* const budget_;
  Listener listener_;
  std::unordered_map<SessionId, std::unique_ptr<Session>> sessions_;
  SessionId next_session_ = 1;
  std::deque<AttachQuestion> attach_questions_;
  std::deque<std::pair<TimePoint, SessionId>> unattached_;  // when the time to attach is over
  std::vector<Arrival> arrivals_;
  std::vector<SessionId> to_flush_;
  std::deque<std::pair<TimePoint, SessionId>> to_flush_later_;
  std::vector<SessionId> dropped_;
};

}  // namespace polarx
