// Sessions are let in, as long as there are descriptors; who counts those; on the main thread.
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <cerrno>
#include <string>
#include <system_error>
#include <utility>

#include "engine/pooler_impl.h"

namespace polarx {
namespace {

constexpr Duration kAttachLimit = std::chrono::seconds(10);
constexpr Duration kTellStrangersAgain = std::chrono::seconds(60);
constexpr Duration kListenAgain = std::chrono::milliseconds(100);

Status NoDescriptor(const std::string& what, std::string detail) {
  return Status(sqlstate::kOutOfDescriptors, "pooler worker has no descriptor left for " + what,
                std::move(detail),
                "Raise the server's limit of open files, or lower pooler.max_pool_size.");
}

// The words of the system, and its limit.
std::string Lack(int error) {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  return std::generic_category().message(error) + "; the process may have " +
         std::to_string(limit.rlim_cur) + ".";
}

}  // namespace

void Pooler::Impl::Accept(TimePoint now) {
  constexpr int kAcceptsATurn = 64;
  if (!reserve_) {
    reserve_ = OpenReserve();
  }
  for (int i = 0; i < kAcceptsATurn; ++i) {
    UniqueFd socket(
        accept4(config_.listener.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (socket) {
      Admit(std::move(socket), now);
    } else if ((errno == EMFILE || errno == ENFILE) && TurnAway(now)) {
      continue;
    } else {
      if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
        // Those who knock would wake us again and again.
        poller_.Remove(config_.listener.get());
        listen_again_ = now + kListenAgain;
      }
      return;
    }
  }
}

void Pooler::Impl::Admit(UniqueFd socket, TimePoint now) {
  ucred peer{};
  if (!IsOurs(socket.get(), &peer, now)) {
    return;
  }
  const SessionId id = next_session_++;
  const int fd = socket.get();
  auto session = std::make_unique<Session>(id, std::move(socket), peer.pid, now);
  if (!poller_.Add(fd, EPOLLIN | EPOLLRDHUP, id)) {
    return;
  }
  unattached_.emplace_back(now + kAttachLimit, id);
  attach_questions_.push_back({.session = id, .pid = peer.pid});
  Session* admitted = sessions_.emplace(id, std::move(session)).first->second.get();
  ReadSession(admitted);  // as a rule its first request has come with it
}

// Others are hung up on without a word, however many knock.
bool Pooler::Impl::IsOurs(int socket, ucred* peer, TimePoint now) {
  socklen_t size = sizeof(*peer);
  if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, peer, &size) != 0) {
    return false;
  }
  if (peer->uid == config_.user) {
    return true;
  }
  ++strangers_;
  if (now >= tell_strangers_) {
    log_.Push(LogSeverity::kLog,
              "process " + std::to_string(peer->pid) + " of operating system user " +
                  std::to_string(peer->uid) + " may not connect to the pooler",
              "Connections of other users since the last such message: " +
                  std::to_string(strangers_) + ".");
    strangers_ = 0;
    tell_strangers_ = now + kTellStrangersAgain;
  }
  return false;
}

UniqueFd Pooler::Impl::OpenReserve() { return UniqueFd(open("/dev/null", O_RDONLY | O_CLOEXEC)); }

// Who cannot be let in for want of a descriptor is told so, instead of being left to wait. False:
// that, too, takes a descriptor that is not there; errno says why.
bool Pooler::Impl::TurnAway(TimePoint now) {
  const Status status = NoDescriptor("another session", Lack(errno));
  reserve_.Reset();
  UniqueFd socket(accept4(config_.listener.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  const int error = errno;
  if ((socket || error != EAGAIN) && now >= told_lack_ + kTellLackAgain) {
    told_lack_ = now;
    log_.Push(LogSeverity::kWarning, status.message(), status.detail() + " " + status.hint());
  }
  ucred peer{};
  if (socket && IsOurs(socket.get(), &peer, now)) {
    std::string frame;
    protocol::Encode(protocol::Reply(protocol::Failed{0, status}), &frame);
    (void)send(socket.get(), frame.data(), frame.size(), MSG_NOSIGNAL);
    char unread[256];  // what is left unread would break the connection
    while (recv(socket.get(), unread, sizeof(unread), 0) > 0) {
    }
  }
  const bool told = static_cast<bool>(socket);
  socket.Reset();
  reserve_ = OpenReserve();
  errno = error;
  return told;
}

// Clients that connect and say nothing would use up descriptors. Nobody wakes for the others' time.
void Pooler::Impl::DropSilent(TimePoint now) {
  for (; !unattached_.empty(); unattached_.pop_front()) {
    const auto [time_is_over, id] = unattached_.front();
    Session* session = FindSession(id);
    if (session == nullptr || session->stage == Session::Stage::kAttached) {
      continue;
    }
    if (time_is_over > now) {
      return;
    }
    EndSession(session, now);
  }
}

int Pooler::Impl::FdsUsed() const {
  constexpr int kOwn = 16;  // listener, epoll sets, wake-ups, the server's own few
  int slots = 0;
  for (const auto& [id, pool] : book_.pools()) {
    slots += pool->total() + pool->count(SlotState::kClosing);
  }
  return kOwn + 2 * config_.worker_threads + static_cast<int>(sessions_.size()) + slots;
}

Status Pooler::Impl::RoomFor(const Node& node) {
  constexpr int kReserve = 8;
  return FdsUsed() + kReserve <= config_.fd_limit
             ? Status()
             : NoDescriptor("a connection to datanode \"" + node.definition.name + "\"",
                            std::to_string(FdsUsed()) + " of " + std::to_string(config_.fd_limit) +
                                " descriptors are in use.");
}

}  // namespace polarx
