// The inside of the pooler: sockets of sessions, book-keeping and worker threads brought together;
// everything here belongs to the main thread.
#pragma once

#include <sys/socket.h>

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/pool_book.h"
#include "core/pool_views.h"
#include "engine/alarm.h"
#include "engine/busy_wait.h"
#include "engine/channel.h"
#include "engine/helper.h"
#include "engine/poller.h"
#include "engine/pooler.h"
#include "engine/session.h"
#include "engine/worker.h"

namespace polarx {

class Pooler::Impl : public SlotDriver, public LeaseEvents, public Surroundings {
 public:
  Impl(PoolerConfig config, const Settings& settings);
  ~Impl() override;
  Status StartThreads();
  bool Stop() noexcept;

  void LookOut() { (void)WaitBusily(poller_.fd(), &busy_poll_); }
  void Receive(TimePoint now);
  void Serve(TimePoint now);
  TimePoint NextDeadline() const;
  void Apply(const Settings& settings, TimePoint now);

  // SlotDriver, LeaseEvents, Surroundings
  Status RoomFor(const Node& node) override;
  void Connect(Slot* slot) override;
  void Warm(Slot* slot) override;
  bool LooksAlive(const Slot& slot) override;
  void Reset(Slot* slot, ResetWork work) override;
  void Measure(Slot* slot) override;
  void Recall(const Slot& slot) override;
  void Taken(const Slot& slot) override;
  void LongLease(const Slot& slot, Duration held) override;
  void Close(Slot* slot) override;
  void Grant(const Ticket& ticket, std::span<Slot* const> slots) override;
  void Reject(const Ticket& ticket, const Status& status) override;
  int SessionPid(SessionId session) override;
  void Log(const std::string& message, const std::string& detail) override;

  int FdsUsed() const;
  void FlushOrders();
  void FlushDueOrders(TimePoint now);

  PoolerConfig config_;
  PoolBook book_;
  Poller poller_;
  std::deque<AttachQuestion> attach_questions_;
  std::set<std::pair<NodeId, RoleId>> known_mappings_;
  std::vector<MappingQuestion> mapping_questions_;
  std::vector<std::pair<SessionId, std::uint32_t>> reloads_;  // waiting for AnswerReload
  bool reload_asked_ = false;
  LogQueue log_;
  std::deque<polarx::LongLease> long_leases_;

  void AnswerAttach(SessionId session, const Status& status, std::string_view role_name,
                    LeaseCell* cells);
  void AnswerReload();

 private:
  // A request that waits for its turn in Serve.
  struct Pending {
    SessionId session = 0;
    protocol::Request request;
  };
  struct PingJob {
    SessionId session = 0;
    std::uint32_t request = 0;
    std::size_t open = 0;  // nodes that have not answered
    std::vector<protocol::Row> rows;
  };
  struct PingTarget {
    std::uint64_t job = 0;
    std::size_t row = 0;
    NodeId node = 0;
    TimePoint sent_at{};
    TimePoint verify_at = kNever;  // a slot that has not answered by then is itself suspect
    TimePoint deadline{};
    TimePoint give_up_at{};  // in ascending order
  };

  Session* FindSession(SessionId session);
  void Accept(TimePoint now);
  void Admit(UniqueFd socket, TimePoint now);
  bool IsOurs(int socket, ucred* peer, TimePoint now);
  bool TurnAway(TimePoint now);
  void ReadSession(Session* session);
  void NoteMappings(const protocol::Request& request);
  void EndSession(Session* session, TimePoint now);
  void RemoveEnded();
  void FlushSessions();

  void Complete(TimePoint now);
  void On(ThreadFailed& done, TimePoint now);
  void On(Connected& done, TimePoint now);
  void On(ConnectFailed& done, TimePoint now);
  void On(RunDone& done, TimePoint now);
  void On(HungUp& done, TimePoint now);
  void On(Closed& done, TimePoint now);
  void On(Pinged& done, TimePoint now);

  void ServeRequest(Session* session, const protocol::Request& request, TimePoint now);
  void HandleAttach(Session* session, const protocol::Attach& attach, TimePoint now);
  void HandleAcquire(Session* session, const protocol::Acquire& acquire, TimePoint now);
  void HandleWithdraw(Session* session, const protocol::Withdraw& withdraw, TimePoint now);
  void HandleRelease(Session* session, const protocol::Release& release, TimePoint now);
  void HandleCancel(Session* session, const protocol::Cancel& cancel, TimePoint now);
  void HandleShow(Session* session, const protocol::Show& show, TimePoint now);
  void HandlePing(Session* session, const protocol::Ping& ping, TimePoint now);
  void Violation(Session* session, const char* what, TimePoint now);
  void Send(Session* session, const protocol::Reply& reply, std::vector<int> fds = {});

  void PingNode(std::uint64_t job, std::size_t row, NodeId node, RoleId role, TimePoint now);
  void PingByStartup(std::uint64_t ping, PingTarget* target, TimePoint now);
  TimePoint NextPingDeadline() const;
  void FinishSlotPing(const Slot& slot, const RunDone& done, TimePoint now);
  void ExpirePings(TimePoint now);
  void FinishPing(std::uint64_t ping, const Status& status, double milliseconds, TimePoint now);

  void RunOn(Slot* slot, RunKind kind, std::vector<std::string> statements,
             std::vector<std::string> verify = {}, std::string measure = {},
             bool first_sent = false);
  void Send(const Slot& slot, Order order, TimePoint due = TimePoint{}) {
    workers_[static_cast<std::size_t>(slot.connection.thread)]->Send(std::move(order));
    orders_due_ = std::min(orders_due_, due);
  }
  void TakeMeasure(Slot* slot, const RunDone& done, TimePoint now);
  void DropSilent(TimePoint now);
  void PrintStats();
  std::vector<protocol::Row> SessionRows(const WallClock& clock);
  WallClock Wall(TimePoint now);

  static constexpr Duration kTellLackAgain = std::chrono::seconds(60);
  static UniqueFd OpenReserve();

  // Outlives this object while a helper thread is stuck.
  struct Mailbox {
    Wakeup wakeup;
    Channel<Completion> completions{&wakeup};
  };
  const std::shared_ptr<Mailbox> mailbox_ = std::make_shared<Mailbox>();
  HelperPool helpers_;
  std::vector<SlotId> lent_;  // as Stop finds them; has room for every connection
  std::vector<std::unique_ptr<Worker>> workers_;
  std::map<NodeId, std::size_t> next_worker_;
  std::size_t first_worker_ = 0;  // of the next node
  bool stopped_ = false;
  bool all_joined_ = true;

  std::vector<Completion> arrived_;
  std::vector<Pending> first_;   // releases and cancels, and the sessions that hung up
  std::vector<Pending> second_;  // everything else
  std::vector<SessionId> hung_up_;
  std::vector<SessionId> to_flush_;
  std::vector<SessionId> ended_;
  std::deque<std::pair<TimePoint, SessionId>> unattached_;  // when the time to attach is over
  std::unordered_map<SessionId, std::unique_ptr<Session>> sessions_;
  SessionId next_session_ = 1;

  std::map<std::uint64_t, PingJob> ping_jobs_;
  std::map<std::uint64_t, PingTarget> pings_;
  std::map<SlotId, std::uint64_t> slot_pings_;
  ParameterSets parameter_sets_;
  std::set<SlotId> measured_;  // slots whose run under way ends with a measure
  std::uint64_t next_ping_ = 1;

  BusyPoll busy_poll_;                // of the waits for poller_
  TimePoint orders_due_ = kNever;     // at the worker threads
  TimePoint alarm_at_ = kNever;       // set last
  Alarm alarm_;                       // for orders_due_
  UniqueFd reserve_ = OpenReserve();  // given up for a moment to tell who cannot be let in
  TimePoint told_lack_ = TimePoint{} - kTellLackAgain;  // in the log
  int strangers_ = 0;                                   // of other users, since the log was told
  TimePoint tell_strangers_{};                          // in the log
  TimePoint listen_again_ = kNever;                     // after descriptors had run out
  TimePoint next_maintenance_ = kNever;
  TimePoint next_stat_line_ = kNever;
  TimePoint stats_since_{};
  Duration wall_offset_{};  // from the steady clock to the time of day
  RequestCounters printed_counters_;
};

}  // namespace polarx
