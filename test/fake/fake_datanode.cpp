// The sockets of a fake datanode are served here, on its thread.
#include "fake/fake_datanode.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cassert>
#include <cerrno>

namespace polarx {

struct FakeDatanode::Connection {
  UniqueFd socket;
  FakeBackend backend;
  bool counted = false;                                 // in counts_.opened
  std::deque<std::pair<TimePoint, std::string>> out{};  // with the time at which it may go
};

FakeDatanode::FakeDatanode(FakeBehaviour behaviour, int port) : behaviour_(std::move(behaviour)) {
  listener_.Reset(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  const int on = 1;
  ::setsockopt(listener_.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  socklen_t size = sizeof(address);
  [[maybe_unused]] const bool listening =
      ::bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), size) == 0 &&
      ::listen(listener_.get(), SOMAXCONN) == 0 &&
      ::getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&address), &size) == 0;
  assert(listening);
  port_ = ntohs(address.sin_port);
  thread_ = std::thread([this] { Main(); });
}

FakeDatanode::~FakeDatanode() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wakeup_.Signal();
  thread_.join();
}

FakeDatanode::Counts FakeDatanode::counts() {
  std::lock_guard lock(mutex_);
  return counts_;
}

bool FakeDatanode::WaitUntil(const std::function<bool(const Counts&)>& condition) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, std::chrono::seconds(10), [&] { return condition(counts_); });
}

void FakeDatanode::SetBehaviour(FakeBehaviour behaviour) {
  std::lock_guard lock(mutex_);
  behaviour_ = std::move(behaviour);
}

void FakeDatanode::SendToAll(std::string bytes) {
  {
    std::lock_guard lock(mutex_);
    send_to_all_ += bytes;
  }
  wakeup_.Signal();
}

void FakeDatanode::HangUp() {
  {
    std::lock_guard lock(mutex_);
    hang_up_ = true;
  }
  wakeup_.Signal();
}

void FakeDatanode::Main() {
  std::unique_lock lock(mutex_);
  while (!stop_) {
    std::vector<pollfd> waits = {{listener_.get(), POLLIN, 0}, {wakeup_.fd(), POLLIN, 0}};
    TimePoint next = kNever;
    for (const auto& connection : connections_) {
      waits.push_back({connection->socket.get(), POLLIN, 0});
      if (!connection->out.empty()) {
        next = std::min(next, connection->out.front().first);
      }
    }
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(next - Now()).count();
    lock.unlock();
    ::poll(waits.data(), waits.size(),
           next == kNever ? -1 : static_cast<int>(std::clamp<decltype(left)>(left, 0, 1000)));
    wakeup_.Clear();
    lock.lock();

    // New connections are appended, so the old ones keep their place in `waits`.
    Obey();
    for (std::size_t i = 2; i < waits.size(); ++i) {
      auto& connection = connections_[i - 2];
      if ((waits[i].revents != 0 && !Read(connection.get())) || !Write(connection.get())) {
        counts_.open -= connection->counted ? 1 : 0;
        connection.reset();
      }
    }
    std::erase(connections_, nullptr);
    Accept();
    changed_.notify_all();
  }
}

void FakeDatanode::Accept() {
  for (;;) {
    UniqueFd socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!socket) {
      return;
    }
    const auto count = [this](const std::string& text) { counts_.statements.push_back(text); };
    connections_.push_back(std::unique_ptr<Connection>(
        new Connection{std::move(socket), FakeBackend(next_pid_++, count)}));
  }
}

bool FakeDatanode::Read(Connection* connection) {
  char bytes[8192];
  const ssize_t received = ::recv(connection->socket.get(), bytes, sizeof(bytes), 0);
  if (received <= 0) {
    return received < 0 && errno == EAGAIN;
  }
  FakeBackend& backend = connection->backend;
  std::string answer = backend.Receive({bytes, static_cast<std::size_t>(received)}, behaviour_);
  if (backend.canceled_pid() != 0) {
    ++counts_.cancels;
    CancelRequest(backend.canceled_pid());
    return false;
  }
  if (!connection->counted) {
    connection->counted = true;
    ++counts_.opened;
    ++counts_.open;
    counts_.last_startup = backend.startup_options();
  }
  counts_.terminated += backend.terminated() ? 1 : 0;
  if (!answer.empty()) {
    connection->out.emplace_back(Now() + behaviour_.delay, std::move(answer));
  }
  return true;
}

// What it writes is little and fits into the socket's buffer.
bool FakeDatanode::Write(Connection* connection) {
  while (!connection->out.empty() && connection->out.front().first <= Now()) {
    const std::string& bytes = connection->out.front().second;
    (void)::send(connection->socket.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    connection->out.pop_front();
  }
  return !connection->out.empty() || !connection->backend.at_end();
}

void FakeDatanode::CancelRequest(std::int32_t pid) {
  for (auto& connection : connections_) {
    if (connection != nullptr && connection->backend.pid() == pid) {
      connection->out.emplace_back(Now(), connection->backend.Cancel(behaviour_));
    }
  }
}

void FakeDatanode::Obey() {
  if (!send_to_all_.empty()) {
    for (auto& connection : connections_) {
      if (connection->counted) {
        connection->out.emplace_back(Now(), send_to_all_);
      }
    }
    send_to_all_.clear();
  }
  if (std::exchange(hang_up_, false)) {
    for (auto& connection : connections_) {
      ::shutdown(connection->socket.get(), SHUT_RDWR);
      connection->out.clear();
    }
  }
}

}  // namespace polarx
