// A worker thread for tests: orders in, completions out.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "fake/fake_datanode.h"
#include "engine/sent_reset.h"
#include "engine/worker.h"

namespace polarx {

class WorkerTest : public ::testing::Test {
 protected:
  WorkerTest() {
    Result<std::unique_ptr<Worker>> worker = Worker::Start(0, &completions_, &helpers_);
    EXPECT_TRUE(worker.ok());
    worker_ = std::move(worker.value());
  }
  ~WorkerTest() override { SetLookupForTest(nullptr); }

  Options OptionsFor(const std::string& host) {
    return {{"dbname", "d"},
            {"gssencmode", "disable"},
            {"host", host},
            {"password", "secret"},
            {"port", std::to_string(datanode_.port())},
            {"sslmode", "disable"},
            {"user", "u"}};
  }
  void Send(Order order) {
    worker_->Send(std::move(order));
    worker_->Flush();
  }
  void Connect(SlotId slot, Duration limit = std::chrono::seconds(10),
               const std::string& host = "127.0.0.1") {
    Send(ConnectOrder{.slot = slot,
                      .node_name = "dn1",
                      .options = OptionsFor(host),
                      .deadline = Now() + limit,
                      .timeout = std::chrono::duration_cast<std::chrono::seconds>(limit)});
  }
  void ConnectTo(SlotId slot, int port, Duration limit = std::chrono::seconds(10)) {
    Options options = OptionsFor("127.0.0.1");
    options[4].second = std::to_string(port);
    Send(ConnectOrder{.slot = slot,
                      .node_name = "dn1",
                      .options = std::move(options),
                      .deadline = Now() + limit,
                      .timeout = std::chrono::duration_cast<std::chrono::seconds>(limit)});
  }
  void Run(SlotId slot, std::vector<std::string> statements,
           Duration limit = std::chrono::seconds(10), std::vector<std::string> verify = {},
           const std::string& measure = "") {
    Send(RunOrder{.slot = slot,
                  .kind = RunKind::kReset,
                  .statements = std::move(statements),
                  .verify = std::move(verify),
                  .measure = measure,
                  .deadline = Now() + limit,
                  .timeout = std::chrono::duration_cast<std::chrono::seconds>(limit)});
  }
  // The holder of the connection has sent the statement.
  void RunSent(const Connected& connected, const std::string& statement,
               Duration limit = std::chrono::seconds(10), const std::string& measure = "") {
    ASSERT_TRUE(SendReset(connected.socket, statement));
    Send(RunOrder{.slot = connected.slot,
                  .kind = RunKind::kReset,
                  .statements = {statement},
                  .first_sent = true,
                  .verify = {},
                  .measure = measure,
                  .deadline = Now() + limit,
                  .timeout = std::chrono::duration_cast<std::chrono::seconds>(limit)});
  }
  Completion NextCompletion() {
    while (pending_.empty()) {
      completions_.Await();
      pollfd wait{wakeup_.fd(), POLLIN, 0};
      if (poll(&wait, 1, 20000) != 1) {
        ADD_FAILURE() << "no completion came";
        return {};
      }
      wakeup_.Clear();
      completions_.Receive(&pending_);
    }
    Completion first = std::move(pending_.front());
    pending_.erase(pending_.begin());
    return first;
  }
  // The next completion, which must be a T.
  template <typename T>
  T Next() {
    Completion next = NextCompletion();
    if (T* value = std::get_if<T>(&next)) {
      return std::move(*value);
    }
    ADD_FAILURE() << "another completion came: number " << next.index();
    return {};
  }
  Connected Open(SlotId slot) {
    Connect(slot);
    return Next<Connected>();
  }

  FakeDatanode datanode_;
  Wakeup wakeup_;
  Channel<Completion> completions_{&wakeup_};
  std::vector<Completion> pending_;
  HelperPool helpers_{4, 2};
  std::unique_ptr<Worker> worker_;
};

}  // namespace polarx
