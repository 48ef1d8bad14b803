// A datanode without a database: listens on 127.0.0.1, answers as it is told and counts; for tests.
// It has a thread of its own; all functions may be called from any thread.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "fake/fake_backend.h"
#include "core/time.h"
#include "engine/channel.h"
#include "engine/unique_fd.h"

namespace polarx {

class FakeDatanode {
 public:
  struct Counts {
    int opened = 0;      // connections that asked for a session, cancel requests not among them
    int open = 0;        // of these, still open
    int terminated = 0;  // of these, whose client said goodbye
    int cancels = 0;     // cancel requests
    std::vector<std::string> statements;                            // in order of arrival
    std::vector<std::pair<std::string, std::string>> last_startup;  // options of the newest
  };

  // Listens at `port`; 0: a free one. Asserts that this works.
  explicit FakeDatanode(FakeBehaviour behaviour = {}, int port = 0);
  ~FakeDatanode();

  int port() const { return port_; }
  Counts counts();
  // False if `condition` does not come true within ten seconds.
  [[nodiscard]] bool WaitUntil(const std::function<bool(const Counts&)>& condition);

  // For all that is received from now on, on connections that are there and new ones.
  void SetBehaviour(FakeBehaviour behaviour);
  // Sends bytes of their own accord to all who are past the startup.
  void SendToAll(std::string bytes);
  // Closes all connections.
  void HangUp();

 private:
  struct Connection;

  void Main();
  void Accept();
  bool Read(Connection* connection);   // false: it is over
  bool Write(Connection* connection);  // likewise
  void CancelRequest(std::int32_t pid);
  void Obey();

  int port_ = 0;
  UniqueFd listener_;
  Wakeup wakeup_;

  std::mutex mutex_;  // guards all that follows but thread_
  std::condition_variable changed_;
  FakeBehaviour behaviour_;
  Counts counts_;
  std::string send_to_all_;
  bool hang_up_ = false;
  bool stop_ = false;
  std::int32_t next_pid_ = 1000;
  std::vector<std::unique_ptr<Connection>> connections_;

  std::thread thread_;
};

}  // namespace polarx
