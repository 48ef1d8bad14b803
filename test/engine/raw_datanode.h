// A datanode that says byte for byte what a test tells it to: a listener on loopback with a thread
// for each connection, on which the test's function speaks.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "engine/server_messages.h"
#include "engine/unique_fd.h"

namespace polarx {

// Bytes of messages.
inline std::string Message(char type, std::string_view body) {
  std::string out;
  AppendMessage(type, body, &out);
  return out;
}
inline std::string Number32(std::uint32_t value) {
  std::string out;
  for (int shift = 24; shift >= 0; shift -= 8) {
    out.push_back(static_cast<char>(value >> shift));
  }
  return out;
}
inline std::string Zero() { return std::string(1, '\0'); }
inline std::string AuthenticationMessage(std::uint32_t kind, std::string_view data = {}) {
  return Message('R', Number32(kind) + std::string(data));
}
inline std::string ParameterMessage(std::string_view name, std::string_view value) {
  std::string out;
  AppendParameter(name, value, &out);
  return out;
}
inline std::string NoticeMessage() {
  return Message('N', "SNOTICE" + Zero() + "C00000" + Zero() + "Mhello" + Zero() + Zero());
}
inline std::string ErrorMessage(std::string_view sqlstate, std::string_view text) {
  return Message('E', "SERROR" + Zero() + "C" + std::string(sqlstate) + Zero() + "M" +
                          std::string(text) + Zero() + Zero());
}
inline std::string CompleteMessage(std::string_view tag) {
  return Message('C', std::string(tag) + Zero());
}
inline std::string ReadyMessage(char state = 'I') {
  return Message('Z', std::string_view(&state, 1));
}
// Of one column, of type text.
inline std::string RowDescription() {
  return Message('T', std::string("\0\1", 2) + "v" + Zero() + Number32(0) + std::string("\0\0", 2) +
                          Number32(25) + std::string("\377\377", 2) + Number32(~0u) +
                          std::string("\0\0", 2));
}
inline std::string DataRow(std::string_view value) {
  return Message('D', std::string("\0\1", 2) + Number32(static_cast<std::uint32_t>(value.size())) +
                          std::string(value));
}
// What a server says behind a startup that it accepts.
inline std::string Greeting() {
  std::string out;
  AppendAuthenticationOk(&out);
  AppendParameter("server_version", "15.3", &out);
  AppendParameter("client_encoding", "UTF8", &out);
  AppendParameter("TimeZone", "UTC", &out);
  AppendKeyData(4242, &out);
  AppendReady(&out);
  return out;
}

class RawDatanode {
 public:
  // One connection, the server's end of it.
  class Peer {
   public:
    explicit Peer(int fd) : fd_(fd) {}
    // All return false when the client has gone.
    bool Send(std::string_view bytes) {
      while (!bytes.empty()) {
        const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
        if (sent <= 0) {
          return false;
        }
        bytes.remove_prefix(static_cast<std::size_t>(sent));
      }
      return true;
    }
    bool ReadStartup() {
      std::string head;
      std::string body;
      return Read(4, &head) && Read(Length(head) - 4, &body);
    }
    bool ReadMessage(char* type, std::string* body) {
      std::string head;
      if (!Read(5, &head)) {
        return false;
      }
      *type = head[0];
      return Read(Length(head.substr(1)) - 4, body);
    }
    // Reads until the client has gone.
    void ReadOn() {
      std::string nothing;
      while (Read(1, &nothing)) {
      }
    }

   private:
    static std::size_t Length(std::string_view bytes) {
      std::size_t length = 0;
      for (char byte : bytes) {
        length = length << 8 | static_cast<unsigned char>(byte);
      }
      return length;
    }
    bool Read(std::size_t size, std::string* to) {
      to->assign(size, '\0');
      return size == 0 || ::recv(fd_, to->data(), size, MSG_WAITALL) == static_cast<ssize_t>(size);
    }

    const int fd_;
  };
  // On the connection's thread; `index` counts connections from 0.
  using Script = std::function<void(Peer& peer, int index)>;

  explicit RawDatanode(Script script) : script_(std::move(script)) {
    listener_.Reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    auto* any = reinterpret_cast<sockaddr*>(&address);
    EXPECT_EQ(::bind(listener_.get(), any, sizeof(address)), 0);
    EXPECT_EQ(::listen(listener_.get(), 64), 0);
    socklen_t size = sizeof(address);
    EXPECT_EQ(::getsockname(listener_.get(), any, &size), 0);
    port_ = ntohs(address.sin_port);
    acceptor_ = std::thread([this] { Accept(); });
  }
  // Hangs up on all clients and waits for the scripts.
  ~RawDatanode() {
    stopping_ = true;
    ::shutdown(listener_.get(), SHUT_RDWR);
    acceptor_.join();
    for (const UniqueFd& peer : peers_) {
      ::shutdown(peer.get(), SHUT_RDWR);
    }
    for (std::thread& thread : threads_) {
      thread.join();
    }
  }

  int port() const { return port_; }
  int accepted() const { return accepted_; }

 private:
  void Accept() {
    while (!stopping_) {
      const int fd = ::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC);
      if (fd < 0) {
        return;
      }
      const int one = 1;  // what is sent in two parts comes in two parts
      ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
      peers_.emplace_back(fd);
      threads_.emplace_back([this, fd, index = accepted_++] {
        Peer peer(fd);
        script_(peer, index);
        ::shutdown(fd, SHUT_RDWR);
      });
    }
  }

  const Script script_;
  UniqueFd listener_;
  int port_ = 0;
  std::atomic<int> accepted_{0};
  std::atomic<bool> stopping_{false};
  std::vector<UniqueFd> peers_;  // the acceptor's until it is joined, like threads_
  std::vector<std::thread> threads_;
  std::thread acceptor_;
};

}  // namespace polarx
