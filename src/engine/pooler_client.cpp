// The session's end of the socket to the pooler worker; in a backend, on its only thread.
#include "engine/pooler_client.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>
#include <variant>

#include "engine/fd_passing.h"

namespace polarx {
namespace {

Status ConnectError(const char* code, std::string_view path, std::string_view reason) {
  std::string message = "could not connect to the pooler's socket \"";
  message.append(path).append("\": ").append(reason);
  return Status(code, std::move(message));
}

Status Violation(std::string detail) {
  return Status(sqlstate::kProtocolViolation, "pooler sent an invalid reply", std::move(detail));
}

}  // namespace

Result<std::optional<PoolerClient>> PoolerClient::Connect(std::string_view path, int worker_pid) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    return ConnectError(sqlstate::kConnectionFailed, path, "invalid length of path");
  }
  std::memcpy(address.sun_path, path.data(), path.size());

  PoolerClient client;
  client.socket_.Reset(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!client.socket_) {
    const int error = errno;
    return ConnectError(error == EMFILE || error == ENFILE ? sqlstate::kOutOfDescriptors
                                                           : sqlstate::kConnectionFailed,
                        path, std::generic_category().message(error));
  }
  int result;
  do {
    result = ::connect(client.fd(), reinterpret_cast<sockaddr*>(&address), sizeof(address));
  } while (result != 0 && errno == EINTR);
  if (result != 0) {
    const int error = errno;
    if (error == EAGAIN) {
      return ConnectError(sqlstate::kCannotConnectNow, path, "too many sessions are connecting");
    }
    return ConnectError(sqlstate::kConnectionFailed, path, std::generic_category().message(error));
  }
  ucred peer{};
  socklen_t size = sizeof(peer);
  if (::getsockopt(client.fd(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0 ||
      peer.pid != worker_pid || peer.uid != ::geteuid()) {
    return ConnectError(sqlstate::kConnectionFailed, path,
                        "process " + std::to_string(peer.pid) + " of user " +
                            std::to_string(peer.uid) + " listens there, not pooler worker " +
                            std::to_string(worker_pid));
  }
  return std::optional<PoolerClient>(std::move(client));
}

Status PoolerClient::Send(const protocol::Request& request) {
  Queue(request);
  return Flush();
}

Status PoolerClient::Flush() {
  if (out_.empty()) {
    return Status::Ok();
  }
  const Result<SendProgress> sent = SendWithFds(fd(), out_, {});
  if (!sent.ok()) {
    return sent.status();
  }
  out_.erase(0, sent.value().bytes);
  return Status::Ok();
}

Result<std::optional<ClientReply>> PoolerClient::Receive() {
  for (;;) {
    const Result<std::size_t> length = protocol::FrameLength(in_, protocol::kMaxReplySize);
    if (!length.ok()) {
      return length.status();
    }
    if (length.value() > 0 && in_.size() >= length.value()) {
      return TakeReply(length.value());
    }
    std::vector<UniqueFd> fds;
    const Result<ReceiveState> received = ReceiveWithFds(fd(), &in_, &fds);
    for (UniqueFd& received_fd : fds) {
      in_fds_.push_back({in_.size(), std::move(received_fd)});
    }
    if (!received.ok()) {
      return received.status();
    }
    if (received.value() == ReceiveState::kWouldBlock) {
      return std::optional<ClientReply>();
    }
    if (received.value() == ReceiveState::kEndOfFile) {
      return Status(sqlstate::kConnectionLost, "pooler closed the connection");
    }
  }
}

// Descriptors travel with the first bytes of their frame, and one receive ends where they end: so
// they are here when it is whole, and the last byte they came with is the frame's own.
Result<std::optional<ClientReply>> PoolerClient::TakeReply(std::size_t length) {
  Result<protocol::Reply> decoded = protocol::DecodeReply(std::string_view(in_).substr(0, length));
  in_.erase(0, length);
  if (!decoded.ok()) {
    return decoded.status();
  }
  ClientReply result{std::move(decoded.value()), {}, {}};
  const auto end = std::find_if(in_fds_.begin(), in_fds_.end(),
                                [length](const Descriptor& own) { return own.end > length; });
  for (auto own = in_fds_.begin(); own != end; ++own) {
    result.fds.push_back(std::move(own->fd));
  }
  in_fds_.erase(in_fds_.begin(), end);
  for (Descriptor& later : in_fds_) {
    later.end -= length;
  }
  auto* granted = std::get_if<protocol::Granted>(&result.reply);
  const std::size_t leases = granted == nullptr ? 0 : granted->leases.size();
  if (result.fds.size() != leases) {
    return Violation(std::to_string(result.fds.size()) + " descriptors for " +
                     std::to_string(leases) + " leases.");
  }
  if (granted != nullptr) {
    if (Status status = TakeParameters(granted, &result); !status.ok()) {
      return status;
    }
  }
  return std::optional<ClientReply>(std::move(result));
}

// Also for a reply that nobody waits for any more: the pooler counts its sets as known.
Status PoolerClient::TakeParameters(protocol::Granted* granted, ClientReply* reply) {
  for (protocol::GrantedLease& lease : granted->leases) {
    SharedParameters set;
    if (lease.told) {
      set = known_sets_.Find(lease.parameter_set);
    } else {
      set = std::make_shared<const ParameterSet>(
          ParameterSet{lease.parameter_set, std::move(lease.parameters)});
      known_sets_.Add(set);
    }
    if (set == nullptr) {
      return Violation("It names a set of parameter values that it has not sent.");
    }
    reply->parameters.push_back(std::move(set));
  }
  return Status::Ok();
}

}  // namespace polarx
