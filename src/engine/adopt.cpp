// A lent descriptor becomes a PGconn here, by playing the server's part of libpq's startup; in a
// backend, on its only thread.
#include "engine/adopt.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <iterator>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "engine/environment.h"
#include "engine/server_messages.h"

namespace polarx {
namespace {

struct Finish {
  void operator()(PGconn* conn) const { PQfinish(conn); }
};
using OwnedConnection = std::unique_ptr<PGconn, Finish>;

// How many listeners one adoption tries.
constexpr int kMostListeners = 3;

// What DetachConnection puts in a descriptor's place: a socket that is connected to nobody. One for
// the process, had before the first adoption, so that a detach needs no new descriptor.
int placeholder = -1;

Status AdoptError(std::string_view reason, int error = 0) {
  std::string message = "could not adopt a datanode connection: ";
  message += reason;
  if (error != 0) {
    message += ": " + std::generic_category().message(error);
  }
  return Status(
      error == EMFILE || error == ENFILE ? sqlstate::kOutOfDescriptors : sqlstate::kInternalError,
      std::move(message));
}

UniqueFd UnixSocket() {
  return UniqueFd(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
}

// libpq has only text; whether descriptors are used up is asked anew.
Status LibpqError(const PGconn* conn) {
  std::string_view reason = PQerrorMessage(conn);
  while (reason.ends_with('\n')) {
    reason.remove_suffix(1);
  }
  const UniqueFd probe = UnixSocket();
  return probe ? AdoptError(reason) : AdoptError("libpq's startup", errno);
}

bool OpenPlaceholder() {
  if (placeholder < 0) {
    placeholder = UnixSocket().Take();
  }
  return placeholder >= 0;
}

bool PeerIsThisProcess(int socket) {
  ucred peer{};
  socklen_t size = sizeof(peer);
  return ::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.pid == ::getpid();
}

// --- the server's part ------------------------------------------------------------------------

// Authentication ok, the parameters, the key data, ready: it does not depend on what libpq sends.
std::string StartupAnswer(std::int32_t backend_pid, const protocol::Parameters& parameters) {
  std::string out;
  AppendAuthenticationOk(&out);
  for (const auto& [name, value] : parameters) {
    AppendParameter(name, value, &out);
  }
  AppendKeyData(backend_pid, &out);
  AppendReady(&out);
  return out;
}

// Listens on an abstract name of 128 random bits, for one adoption.
class Listener {
 public:
  Status Open() {
    std::array<unsigned char, 16> random;
    if (::getrandom(random.data(), random.size(), 0) != static_cast<ssize_t>(random.size())) {
      return AdoptError("no random bytes", errno);
    }
    host_ = "@";
    for (const unsigned char byte : random) {
      host_.push_back("0123456789abcdef"[byte >> 4]);
      host_.push_back("0123456789abcdef"[byte & 15]);
    }
    // The name that libpq makes of host and port, the @ standing for the zero byte.
    const std::string name = host_ + "/.s.PGSQL." + kPort;
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path + 1, name.data() + 1, name.size() - 1);
    const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size());
    socket_ = UnixSocket();
    if (!socket_ || ::bind(socket_.get(), reinterpret_cast<sockaddr*>(&address), size) != 0 ||
        ::listen(socket_.get(), SOMAXCONN) != 0) {
      return AdoptError("no listener", errno);
    }
    return Status::Ok();
  }

  // Hangs up on those of other processes who have come, and sends `answer` to the first of this
  // one: true. False: there is none.
  Result<bool> ServeOne(std::string_view answer) {
    for (;;) {
      UniqueFd peer(::accept4(socket_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
      if (!peer) {
        if (errno == EAGAIN || errno == EWOULDBLOCK) {
          return false;
        }
        if (errno == EINTR || errno == ECONNABORTED) {
          continue;
        }
        return AdoptError("accept", errno);
      }
      if (!PeerIsThisProcess(peer.get())) {
        continue;
      }
      const ssize_t sent = ::send(peer.get(), answer.data(), answer.size(), MSG_NOSIGNAL);
      if (sent >= 0 && sent < static_cast<ssize_t>(answer.size())) {
        return AdoptError("parameter values fill a socket's buffer");
      }
      peers_.push_back(std::move(peer));  // kept open until libpq has read
      return true;
    }
  }

  int fd() const { return socket_.get(); }
  const char* host() const { return host_.c_str(); }
  static constexpr const char* kPort = "1";

 private:
  std::string host_;
  UniqueFd socket_;
  std::vector<UniqueFd> peers_;
};

// --- libpq's part -----------------------------------------------------------------------------

// Everything that libpq would otherwise look up (user, home directory, files) is spelled out.
PGconn* StartLibpq(const char* host) {
  const std::pair<const char*, const char*> options[] = {
      {"host", host},
      {"port", Listener::kPort},
      {"user", "pooler"},
      {"dbname", "pooler"},
      {"password", "none"},
      {"passfile", "/dev/null/none"},
      {"sslmode", "disable"},
      {"gssencmode", "disable"},
      {"channel_binding", "disable"},
      {"target_session_attrs", "any"},
  };
  const char* keywords[std::size(options) + 1] = {};
  const char* values[std::size(options) + 1] = {};
  for (std::size_t i = 0; i < std::size(options); ++i) {
    keywords[i] = options[i].first;
    values[i] = options[i].second;
  }
  return PQconnectStartParams(keywords, values, 0);
}

short WaitFor(PostgresPollingStatusType state) {
  return state == PGRES_POLLING_READING ? POLLIN : POLLOUT;
}

// Both parts by turns. As a rule nothing has to be waited for: a Unix connect is done at once, and
// the answer lies ready before libpq asks. Only a stray peer of this process takes further turns.
Status RunStartup(PGconn* conn, Listener* listener, std::string_view answer, TimePoint deadline) {
  PostgresPollingStatusType state = PGRES_POLLING_WRITING;
  for (;;) {
    const Result<bool> served = listener->ServeOne(answer);
    if (!served.ok()) {
      return served.status();
    }
    if (!served.value()) {
      if (Now() >= deadline) {
        return AdoptError("timeout");
      }
      pollfd waits[] = {{listener->fd(), POLLIN, 0}, {PQsocket(conn), WaitFor(state), 0}};
      (void)::poll(waits, std::size(waits), MillisecondsUntil(deadline));
    }
    PostgresPollingStatusType before;
    do {
      before = std::exchange(state, PQconnectPoll(conn));
    } while (state != before && state != PGRES_POLLING_OK && state != PGRES_POLLING_FAILED);
    if (state == PGRES_POLLING_OK) {
      return Status::Ok();
    }
    if (state == PGRES_POLLING_FAILED) {
      return LibpqError(conn);
    }
  }
}

// Starts up a PGconn that is connected to this process itself.
Status Connect(const std::string& answer, TimePoint deadline, OwnedConnection* started) {
  Listener listener;
  if (Status status = listener.Open(); !status.ok()) {
    return status;
  }
  OwnedConnection conn(StartLibpq(listener.host()));
  if (conn == nullptr) {
    return AdoptError("out of memory");
  }
  if (PQstatus(conn.get()) == CONNECTION_BAD) {
    return LibpqError(conn.get());
  }
  if (Status status = RunStartup(conn.get(), &listener, answer, deadline); !status.ok()) {
    return status;
  }
  if (!PeerIsThisProcess(PQsocket(conn.get()))) {
    return AdoptError("its listener belongs to another process");
  }
  *started = std::move(conn);
  return Status::Ok();
}

}  // namespace

Result<PGconn*> StartConnection(std::int32_t backend_pid, const protocol::Parameters& parameters,
                                Duration limit) {
  if (!OpenPlaceholder()) {
    return AdoptError("no placeholder", errno);
  }
  const std::string answer = StartupAnswer(backend_pid, parameters);
  const TimePoint deadline = Now() + limit;
  LibpqEnvironmentGuard no_environment;
  OwnedConnection conn;
  Status status = Connect(answer, deadline, &conn);
  // Others may have filled the listener's queue; they do not know the name of the next one.
  for (int listeners = 1;
       listeners < kMostListeners && status.sqlstate() == sqlstate::kInternalError; ++listeners) {
    status = Connect(answer, deadline, &conn);
  }
  if (!status.ok()) {
    return status;
  }
  return conn.release();
}

Result<PGconn*> AdoptConnection(UniqueFd fd, std::int32_t backend_pid,
                                const protocol::Parameters& parameters, Duration limit) {
  const Result<PGconn*> started = StartConnection(backend_pid, parameters, limit);
  if (!started.ok()) {
    return started.status();
  }
  OwnedConnection conn(started.value());
  // libpq relies on it, whoever opened the connection.
  if (::fcntl(fd.get(), F_SETFL, O_NONBLOCK) != 0 || !PutUnder(conn.get(), fd.get())) {
    return AdoptError("its descriptor cannot be used", errno);
  }
  return conn.release();
}

bool PutUnder(PGconn* conn, int fd) {
  int result;
  do {
    result = ::dup3(fd, PQsocket(conn), O_CLOEXEC);
  } while (result < 0 && (errno == EINTR || errno == EBUSY));
  return result >= 0;
}

void DetachConnection(PGconn* conn) {
  const int socket = PQsocket(conn);
  if (socket < 0) {
    return;  // libpq has closed it by itself, which says nothing to the datanode
  }
  if (!OpenPlaceholder() || !PutUnder(conn, placeholder)) {
    // Somebody closed the placeholder behind our back: better this connection lost than its next
    // holder's statements disturbed.
    placeholder = -1;
    (void)::shutdown(socket, SHUT_RDWR);
  }
}

bool ReportsStill(const PGconn* conn, const protocol::Parameters& values) {
  auto known = values.begin();
  for (const char* name : kReportedParameters) {
    const char* value = PQparameterStatus(conn, name);
    if (value == nullptr) {
      continue;
    }
    if (known == values.end() || known->first != name || known->second != value) {
      return false;
    }
    ++known;
  }
  return known == values.end();
}

protocol::Parameters ChangedParameters(const PGconn* conn, const protocol::Parameters& lent) {
  protocol::Parameters changed;
  if (ReportsStill(conn, lent)) {
    return changed;
  }
  for (const auto& [name, value] : lent) {
    const char* now = PQparameterStatus(conn, name.c_str());
    if (now != nullptr && value != now) {
      changed.emplace_back(name, now);
    }
  }
  for (auto& parameter : ReportedParameters(conn)) {
    const bool was_lent = std::any_of(lent.begin(), lent.end(), [&parameter](const auto& other) {
      return other.first == parameter.first;
    });
    if (!was_lent) {
      changed.push_back(std::move(parameter));
    }
  }
  return changed;
}

protocol::Parameters ReportedParameters(const PGconn* conn) {
  protocol::Parameters found;
  for (const char* name : kReportedParameters) {
    if (const char* value = PQparameterStatus(conn, name); value != nullptr) {
      found.emplace_back(name, value);
    }
  }
  return found;
}

}  // namespace polarx
