// One datanode connection as a state machine over non-blocking libpq; owned by one worker thread.
#pragma once

#include <libpq-fe.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/orders.h"
#include "engine/sent_reset.h"
#include "engine/unique_fd.h"

namespace polarx {

// What its worker thread does for a connection.
class DatanodeHost {
 public:
  virtual ~DatanodeHost() = default;
  virtual void Watch(int fd, std::uint32_t events, SlotId slot) = 0;    // first time
  virtual void Rewatch(int fd, std::uint32_t events, SlotId slot) = 0;  // other events
  virtual void Unwatch(int fd) = 0;
  virtual void SetDeadline(SlotId slot, TimePoint deadline) = 0;  // kNever: none
  virtual void LookUp(SlotId slot, const std::string& host) = 0;  // -> OnLookedUp
  virtual void RunCancel(SlotId slot, const std::string& key,
                         PGcancel* cancel) = 0;  // -> OnCancelled
  virtual void Report(Completion completion) = 0;
};

class Datanode {
 public:
  Datanode(DatanodeHost* host, SlotId slot) : host_(host), slot_(slot) {}
  ~Datanode();
  Datanode(const Datanode&) = delete;
  Datanode& operator=(const Datanode&) = delete;

  void Connect(ConnectOrder order);
  void Run(RunOrder order);
  void Cancel(const CancelOrder& order);
  void Close(const CloseOrder& order);
  bool open() const { return phase_ == Phase::kPassive || phase_ == Phase::kRunning; }
  bool closing() const { return phase_ == Phase::kDraining; }
  void Abandon();  // closes our copy of a lent connection without a word to the datanode

  void OnEvents(std::uint32_t events);
  void OnDeadline();
  void OnLookedUp(const std::string& addresses, const std::string& error);
  void OnCancelled();

  // The worker forgets it then.
  bool finished() const { return phase_ == Phase::kFinished; }

 private:
  static const std::uint32_t kPassiveEvents;

  enum class Phase {
    kLookingUp,
    kConnecting,
    kPassive,  // idle or lent: only the datanode's hang-up is looked for
    kRunning,
    kDraining,  // closed on our side, waiting for the datanode's end of file
    kFinished,
  };

  void StartConnect();
  void PollConnect();
  void ShareTime();
  bool TryNextAddress();
  void FailConnect(Status status, bool pool_limit = false);
  void AddOwnStatements();
  void NextStatement();
  void ReadSentAnswer();
  void Await();
  void ReadResults();
  void FinishRun(Status status);
  void FailRun(const std::string& reason);
  void Drain();
  void Finish(bool timed_out);
  void FreeConnection();
  void SetEvents(std::uint32_t events);
  bool Measuring() const;
  std::optional<protocol::Parameters> NewParameters();

  DatanodeHost* const host_;
  const SlotId slot_;
  Phase phase_ = Phase::kLookingUp;
  PGconn* conn_ = nullptr;
  int watched_ = -1;          // descriptor in the worker's epoll set
  std::uint32_t events_ = 0;  // it is there for
  bool hung_up_ = false;      // reported
  ConnectOrder connect_;
  std::vector<std::string> addresses_;  // of the host, where its name was looked up
  std::size_t address_ = 0;             // the one under way
  std::string helper_key_;              // host and port
  ConnectReach reach_ = ConnectReach::kNothing;
  RunOrder run_;
  std::optional<AnswerReader> sent_answer_;  // of run_'s first statement, while that is awaited
  std::size_t statement_ = 0;                // of run_: the next one
  Status statement_status_;
  bool answered_ = false;  // the statement under way: something has come besides its end
  std::optional<std::string> measured_;  // value of run_.measure
  bool timed_out_ = false;
  bool retried_ = false;                 // the statement that a late cancel hit
  bool was_cancelled_ = false;           // since the last run
  int cancels_ = 0;                      // cancels under way on helper threads
  std::optional<RunOrder> waiting_run_;  // for the cancel to be through
  protocol::Parameters overrides_;       // values that libpq's copy is wrong about
  protocol::Parameters reported_;        // values as last told to the main thread
  UniqueFd draining_;                    // duplicate that shows the datanode's end of file
};

}  // namespace polarx
