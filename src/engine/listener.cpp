// Sessions are let in here, as long as there are descriptors; on the main thread.
#include "engine/listener.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <cassert>
#include <cerrno>
#include <string>
#include <utility>

#include "core/protocol.h"
#include "engine/descriptor_budget.h"

namespace polarx {
namespace {

constexpr int kAcceptsACall = 64;
constexpr Duration kTellAgain = std::chrono::seconds(60);
constexpr Duration kRest = std::chrono::milliseconds(100);

UniqueFd OpenReserve() { return UniqueFd(open("/dev/null", O_RDONLY | O_CLOEXEC)); }

bool OutOfDescriptors(int error) { return error == EMFILE || error == ENFILE; }

}  // namespace

Listener::Listener(UniqueFd socket, uid_t user, Poller* poller, LogQueue* log)
    : socket_(std::move(socket)), user_(user), poller_(poller), log_(log), reserve_(OpenReserve()) {
  assert(socket_ && poller_ != nullptr && log_ != nullptr);
}

bool Listener::Watch(std::uint64_t key) {
  key_ = key;
  return poller_->Add(socket_.get(), EPOLLIN, key_);
}

UniqueFd Listener::AcceptOne() {
  return UniqueFd(accept4(socket_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
}

std::vector<Guest> Listener::Accept(TimePoint now) {
  if (!reserve_) {
    reserve_ = OpenReserve();
  }
  std::vector<Guest> guests;
  for (int i = 0; i < kAcceptsACall; ++i) {
    Guest guest{AcceptOne()};
    int error = errno;
    if (guest.socket) {
      if (IsOurs(guest.socket.get(), &guest.pid, now)) {
        guests.push_back(std::move(guest));
      }
      continue;
    }
    if (OutOfDescriptors(error)) {
      if (TurnAway(error, now)) {
        continue;
      }
      error = errno;
    }
    if (OutOfDescriptors(error) || error == ENOMEM || error == ENOBUFS) {
      // Those who knock would wake us again and again.
      poller_->Remove(socket_.get());
      listen_again_at_ = now + kRest;
    }
    break;
  }
  return guests;
}

void Listener::ListenAgain(TimePoint now) {
  if (now >= listen_again_at_) {
    listen_again_at_ = poller_->Add(socket_.get(), EPOLLIN, key_) ? kNever : now + kRest;
  }
}

// Others are hung up on without a word, however many knock.
bool Listener::IsOurs(int socket, int* pid, TimePoint now) {
  ucred peer{};
  socklen_t size = sizeof(peer);
  if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) {
    return false;
  }
  *pid = peer.pid;
  if (peer.uid == user_) {
    return true;
  }
  ++strangers_;
  if (now >= tell_strangers_at_) {
    log_->Push(LogSeverity::kLog,
               "process " + std::to_string(peer.pid) + " of operating system user " +
                   std::to_string(peer.uid) + " may not connect to the pooler",
               "Connections of other users since the last such message: " +
                   std::to_string(strangers_) + ".");
    strangers_ = 0;
    tell_strangers_at_ = now + kTellAgain;
  }
  return false;
}

// Who cannot be let in, for `error`, is told so instead of being left to wait. Returns false if
// nobody was told, with the reason in errno: that, too, takes a descriptor.
bool Listener::TurnAway(int error, TimePoint now) {
  const Status status = DescriptorBudget::Refused("another session", error);
  reserve_.Reset();
  UniqueFd socket = AcceptOne();
  const int why = errno;
  if ((socket || why != EAGAIN) && now >= tell_refused_at_) {
    tell_refused_at_ = now + kTellAgain;
    log_->Push(LogSeverity::kWarning, status.message(), status.detail() + " " + status.hint());
  }
  int pid = 0;
  if (socket && IsOurs(socket.get(), &pid, now)) {
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
  errno = why;
  return told;
}

}  // namespace polarx
