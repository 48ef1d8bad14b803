// One datanode connection as a state machine that never waits; owned by one worker thread.
#pragma once

#include <optional>
#include <string>
#include <variant>

#include "engine/connecting.h"
#include "engine/datanode_host.h"
#include "engine/orders.h"
#include "engine/running.h"
#include "engine/unique_fd.h"

namespace polarx {

// A connection from its ConnectOrder to its ConnectFailed or Closed. It reports what happens to
// its host and never closes by itself.
class Datanode {
 public:
  Datanode(DatanodeHost* host, SlotId slot) : host_(host), slot_(slot), link_(host, slot) {}
  Datanode(const Datanode&) = delete;
  Datanode& operator=(const Datanode&) = delete;

  // Orders. Connect comes first, Run and Cancel only while it is open and nothing is run, Close
  // while it is open.
  void Connect(ConnectOrder order);
  void Run(RunOrder order);
  void Cancel(const CancelOrder& order);
  void Close(const CloseOrder& order);
  // It is lent: closes this process's copy without a word to the datanode. Then it may only be
  // destroyed.
  void Abandon() { link_.LeaveToHolder(); }

  void OnEvents(std::uint32_t events);
  void OnDeadline();
  void OnLookedUp(const std::string& addresses, const std::string& error);
  void OnCancelled();

  bool open() const { return Is<Open>() || Is<Running>(); }
  bool closing() const { return Is<Draining>(); }
  bool finished() const { return Is<Finished>(); }  // the worker forgets it then

 private:
  // Idle or lent: only the datanode's hang-up is looked for.
  struct Open {
    std::optional<RunOrder> waiting;  // for the cancel to be through
  };
  // Closed on our side; waits for the datanode's end of file.
  struct Draining {
    UniqueFd socket;  // a duplicate, which shows it
  };
  struct Finished {};

  template <typename T>
  bool Is() const {
    return std::holds_alternative<T>(state_);
  }
  void Take(std::optional<Connecting::Outcome> outcome);
  void Take(std::optional<Running::End> end);
  void BeginRun(RunOrder order);
  void HangUp(const std::string& why);
  void SendCancel();
  void Drain(const UniqueFd& socket);
  void Finish(bool timed_out);

  DatanodeHost* const host_;
  const SlotId slot_;
  DatanodeLink link_;
  std::string helper_key_;      // host and port
  bool hung_up_ = false;        // reported
  bool was_cancelled_ = false;  // since the last run
  int cancels_ = 0;             // cancels under way on helper threads
  CancelOrder last_cancel_;
  protocol::Parameters parameters_;  // as the datanode reports them
  protocol::Parameters told_;        // as last told to the main thread
  std::variant<Finished, Connecting, Open, Running, Draining> state_;
};

}  // namespace polarx
