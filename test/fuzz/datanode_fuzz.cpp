// Fuzz target: what a datanode sends to the pooler worker, in the startup through the guard before
// libpq, later to the pooler's own reader of answers. Every order ends with one completion that the
// main thread and sessions can read, whatever the datanode says.
#include <fuzzer/FuzzedDataProvider.h>

#include <algorithm>
#include <chrono>
#include <cstddef>

#include "engine/datanode.h"
#include "engine/poller.h"
#include "streams.h"

namespace polarx {
namespace {

using fuzz::Require;

constexpr SlotId kSlot = 7;

template <typename T>
void RequireReadable(T reply) {
  std::string frame;
  protocol::Encode(protocol::Reply(std::move(reply)), &frame);
  Require(protocol::DecodeReply(frame).ok(), "the session can read what becomes of it");
}

void CheckStatus(const Status& status) {
  Require(fuzz::IsSqlstate(status.sqlstate()), "a failure has an SQLSTATE");
  Require(status.message().find('\n') == std::string::npos, "a message is one line");
  RequireReadable(protocol::Failed{1, status});
}

void CheckParameters(const protocol::Parameters& parameters) {
  RequireReadable(protocol::Granted{1, {{.lease = 1, .backend_pid = 1, .parameters = parameters}}});
}

// The datanode's listener, with the abstract name that libpq makes of host and port.
class DatanodeListener {
 public:
  DatanodeListener()
      : host_("@polarx-fuzz-datanode-" + std::to_string(::getpid())),
        socket_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const std::string name = host_ + "/.s.PGSQL.1";
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path + 1, name.data() + 1, name.size() - 1);
    const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size());
    Require(::bind(socket_.get(), reinterpret_cast<sockaddr*>(&address), size) == 0 &&
                ::listen(socket_.get(), 8) == 0,
            "a listener");
  }
  const std::string& host() const { return host_; }
  UniqueFd Accept() const {
    return UniqueFd(::accept4(socket_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  }

 private:
  std::string host_;
  UniqueFd socket_;
};

// A datanode connection, its worker thread's loop and the orders that the main thread may give.
class DatanodeUnderTest : public DatanodeHost {
 public:
  explicit DatanodeUnderTest(const DatanodeListener& listener) : datanode_(this, kSlot) {
    datanode_.Connect({.slot = kSlot,
                       .node_name = "dn1",
                       .options = {{"dbname", "d"},
                                   {"gssencmode", "disable"},
                                   {"host", listener.host()},
                                   {"passfile", "/dev/null/none"},
                                   {"password", "secret"},
                                   {"port", "1"},
                                   {"sslmode", "disable"},
                                   {"user", "u"}},
                       .deadline = TimePoint{} + std::chrono::seconds(10),
                       .timeout = std::chrono::seconds(10)});
    server_ = listener.Accept();
    Require(static_cast<bool>(server_), "libpq connects");
    Turns();
  }

  void ServerSends(std::string_view bytes) {
    while (!bytes.empty() && server_) {
      char heard[4096];
      while (::recv(server_.get(), heard, sizeof(heard), MSG_DONTWAIT) > 0) {
      }
      const ssize_t sent =
          ::send(server_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent <= 0) {
        return;  // hung up, or full: nobody reads what an idle connection is sent
      }
      bytes.remove_prefix(static_cast<std::size_t>(sent));
      Turns();
    }
  }
  void ServerHangsUp() {
    server_.Reset();
    Turns();
  }
  void Run(RunKind kind) {
    if (!datanode_.open() || running_ || !connected_) {
      return;
    }
    running_ = true;
    RunOrder order{.slot = kSlot,
                   .kind = kind,
                   .statements = {"DISCARD ALL", "SELECT 1"},
                   .verify = {},
                   .measure = "",
                   .deadline = TimePoint{} + std::chrono::seconds(10),
                   .timeout = std::chrono::seconds(10)};
    if (kind == RunKind::kReset) {
      order.verify = {"DateStyle", "TimeZone"};
    } else if (kind == RunKind::kMemory) {
      order.statements.clear();
      order.measure = "SELECT 2";
    }
    datanode_.Run(std::move(order));
    Turns();
  }
  void Cancel() {
    if (datanode_.open() && !running_) {
      cancelling_ = connected_;
      datanode_.Cancel({.slot = kSlot, .deadline = TimePoint{} + std::chrono::seconds(10)});
    }
  }
  void CancelIsThrough() {
    if (cancels_ > 0) {
      --cancels_;
      datanode_.OnCancelled();
      Turns();
    }
  }
  void DeadlineComes() {
    if (deadline_ != kNever) {
      deadline_ = kNever;
      datanode_.OnDeadline();
      Turns();
    }
  }
  void Close() {
    if (datanode_.open()) {
      running_ = cancelling_ = false;  // the main thread has forgotten both
      datanode_.Close({.slot = kSlot, .cancel = false, .deadline = TimePoint{}});
      Turns();
    }
  }

  // The datanode is gone, then time passes: that must end everything.
  void Finish() {
    ServerHangsUp();
    DeadlineComes();
    while (cancels_ > 0) {
      CancelIsThrough();
    }
    DeadlineComes();
    Require(connected_ || refused_, "a connect ends");
    Require(!running_, "a run ends");
    Require(!cancelling_, "a cancel ends");
    Close();
    DeadlineComes();
    Require(datanode_.finished() && (refused_ || closed_), "a close ends");
  }

  // DatanodeHost
  void Watch(int fd, std::uint32_t events, SlotId) override {
    Require(poller_.Add(fd, events, kSlot), "an open descriptor is watched, once");
  }
  void Rewatch(int fd, std::uint32_t events, SlotId) override {
    Require(poller_.Change(fd, events, kSlot), "what changes is watched");
  }
  void Unwatch(int fd) override { poller_.Remove(fd); }
  void SetDeadline(SlotId, TimePoint deadline) override { deadline_ = deadline; }
  void LookUp(SlotId, const std::string&) override { Require(false, "nothing to look up"); }
  void RunCancel(SlotId, const std::string&, PGcancel* cancel) override {
    PQfreeCancel(cancel);
    ++cancels_;
  }
  void Report(Completion completion) override {
    if (const auto* connected = std::get_if<Connected>(&completion)) {
      Require(!std::exchange(connected_, true), "connected once");
      CheckParameters(connected->parameters);
    } else if (const auto* failed = std::get_if<ConnectFailed>(&completion)) {
      Require(!connected_ && !std::exchange(refused_, true), "refused once");
      CheckStatus(failed->status);
    } else if (const auto* done = std::get_if<RunDone>(&completion)) {
      Require(std::exchange(running_, false), "a run ends once");
      if (done->status.ok()) {
        CheckParameters(done->parameters.value_or(protocol::Parameters()));
      } else {
        CheckStatus(done->status);
      }
    } else if (std::holds_alternative<HungUp>(completion)) {
      Require(!std::exchange(hung_up_, true), "hung up once");
    } else if (std::holds_alternative<CancelThrough>(completion)) {
      Require(std::exchange(cancelling_, false), "a cancel is through once");
    } else {
      Require(std::holds_alternative<Closed>(completion) && !std::exchange(closed_, true),
              "closed once");
    }
  }

 private:
  // The worker thread's loop, until nothing happens any more.
  void Turns() {
    for (int turns = 0; !datanode_.finished(); ++turns) {
      const auto events = poller_.Wait(TimePoint{});
      if (events.empty()) {
        return;
      }
      Require(turns < 1000, "the loop comes to rest");
      for (const epoll_event& event : events) {
        datanode_.OnEvents(event.events);
      }
    }
  }

  Poller poller_;
  UniqueFd server_;
  TimePoint deadline_ = kNever;
  bool connected_ = false, refused_ = false, running_ = false;
  bool cancelling_ = false, hung_up_ = false, closed_ = false;
  int cancels_ = 0;
  Datanode datanode_;
};

}  // namespace
}  // namespace polarx

// What the datanode sends stands in front, what happens at the end.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using polarx::RunKind;
  static const polarx::DatanodeListener listener;
  const polarx::fuzz::DescriptorsKept kept;
  FuzzedDataProvider input(data, size);
  polarx::DatanodeUnderTest connection(listener);
  while (input.remaining_bytes() > 0) {
    switch (input.ConsumeIntegralInRange(0, 15)) {
      case 0:
        connection.Run(RunKind::kReset);
        break;
      case 1:
        connection.Run(RunKind::kWarm);
        break;
      case 2:
        connection.Run(RunKind::kMemory);
        break;
      case 3:
        connection.Cancel();
        break;
      case 4:
        connection.CancelIsThrough();
        break;
      case 5:
        connection.DeadlineComes();
        break;
      case 6:
        connection.Close();
        break;
      case 7:
        connection.ServerHangsUp();
        break;
      default: {
        const auto length = input.ConsumeIntegralInRange<std::size_t>(1, 2000);
        connection.ServerSends(input.ConsumeBytesAsString(length));
      }
    }
  }
  connection.Finish();
  return 0;
}
