// A datanode past its startup, at the other end of a socketpair; on a thread of its own until the
// client's end is closed everywhere.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <string>
#include <string_view>
#include <thread>

#include "fake/fake_backend.h"
#include "engine/unique_fd.h"

namespace polarx {

class ScriptedDatanode {
 public:
  ScriptedDatanode() {
    int ends[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    client_.Reset(ends[0]);
    server_.Reset(ends[1]);
    thread_ = std::thread([this] { Main(); });
  }
  ~ScriptedDatanode() {
    client_.Reset();
    ::shutdown(server_.get(), SHUT_RDWR);
    Join();
  }

  // A copy of the client's end, as a lease carries one; the pooler's own stays here.
  UniqueFd Lend() { return UniqueFd(::fcntl(client_.get(), F_DUPFD_CLOEXEC, 0)); }
  int client() const { return client_.get(); }
  void HangUp() { ::shutdown(server_.get(), SHUT_RDWR); }
  // Of its own accord; it is there at once.
  void Say(std::string_view bytes) {
    EXPECT_EQ(::send(server_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
  }
  // Whoever sends it something is told that it is gone; what it says still arrives.
  void StopListening() { ::shutdown(server_.get(), SHUT_RD); }
  // All that the datanode read until every client's end was closed.
  std::string BytesUntilTheEnd() {
    client_.Reset();
    Join();
    return bytes_;
  }

 private:
  void Main() {
    FakeBackend backend(4711, [](const std::string&) {});
    backend.SkipStartup();
    char buffer[8192];
    ssize_t received;
    while ((received = ::recv(server_.get(), buffer, sizeof(buffer), 0)) > 0) {
      const std::string_view bytes(buffer, static_cast<std::size_t>(received));
      bytes_ += bytes;
      const std::string answer = backend.Receive(bytes, {});
      ::send(server_.get(), answer.data(), answer.size(), MSG_NOSIGNAL);
    }
  }
  void Join() {
    if (thread_.joinable()) {
      thread_.join();
    }
  }

  UniqueFd client_, server_;
  std::string bytes_;  // of the thread, until it is joined
  std::thread thread_;
};

}  // namespace polarx
