// A backend sends frames to the pooler worker, and waits for replies and sockets; on its only
// thread.
#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <new>
#include <utility>
#include <variant>

#include "core/protocol.h"
#include "core/time.h"
#include "engine/busy_wait.h"
#include "engine/poller.h"
#include "engine/pooler_client.h"

#include "pg/session/client_state.h"
#include "pg/prelude.h"

namespace polarx {
namespace {

constexpr int kSocketPosition = 2;  // in the wait set
constexpr int kSendLimitMs = 1000;
constexpr int kLongestWaitMs = 60'000;

// The time left of `deadline` for one wait, rounded up.
long WaitTime(TimePoint deadline) { return MillisecondsUntil(deadline, kLongestWaitMs); }

uint32 RequestOf(const protocol::Reply& reply) {
  struct Visitor {
    uint32 operator()(const protocol::Attached&) const { return 0; }
    uint32 operator()(const protocol::Granted& granted) const { return granted.request; }
    uint32 operator()(const protocol::Failed& failed) const { return failed.request; }
    uint32 operator()(const protocol::Rows& rows) const { return rows.request; }
    uint32 operator()(const protocol::Done& done) const { return done.request; }
    uint32 operator()(const protocol::Recall&) const { return 0; }
  };
  return std::visit(Visitor{}, reply);
}

// Unless it is a recall, which is heeded, there is nothing to be done about it.
void HeedUnasked(const Attachment* attachment, const protocol::Reply& reply) {
  if (const auto* recall = std::get_if<protocol::Recall>(&reply)) {
    for (PolarxLease* lease = ClientLeases(); lease != nullptr; lease = lease->next) {
      if (lease->attachment == attachment->number &&
          std::find(recall->leases.begin(), recall->leases.end(), lease->id) !=
              recall->leases.end()) {
        lease->hold.recalled = true;
      }
    }
  }
}

enum class Taken { kReply, kFailed, kNothing, kGone };

// Looks for the reply to `request`; replies to requests that were given up go, and with them the
// descriptors they brought.
Taken TakeReply(Attachment* attachment, uint32 request, ErrorText* error) noexcept {
  try {
    if (!attachment->channel.Flush().ok()) {
      return Taken::kGone;
    }
    for (;;) {
      Result<std::optional<ClientReply>> received = attachment->channel.Receive();
      if (!received.ok()) {
        return Taken::kGone;
      }
      if (!received.value().has_value()) {
        return Taken::kNothing;
      }
      ClientReply& reply = *received.value();
      if (std::holds_alternative<protocol::Recall>(reply.reply) ||
          RequestOf(reply.reply) != request) {
        HeedUnasked(attachment, reply.reply);
        continue;
      }
      attachment->pending = 0;
      if (const auto* failed = std::get_if<protocol::Failed>(&reply.reply)) {
        KeepError(failed->status, error);
        return Taken::kFailed;
      }
      attachment->reply = std::move(reply);
      return Taken::kReply;
    }
  } catch (...) {
    KeepOutOfMemory(error);  // part of the reply is lost, so nothing can follow it
    ClientHangUp();
    return Taken::kFailed;
  }
}

// poll until `deadline`, signals or not. False: time is over.
bool PollSocket(int socket, short events, TimePoint deadline) noexcept {
  pollfd wait = {socket, events, 0};
  for (;;) {
    const long left = WaitTime(deadline);
    const int ready = ::poll(&wait, 1, static_cast<int>(left));
    if (ready > 0 || (ready < 0 && errno != EINTR)) {
      return true;
    }
    if (deadline != kNever && Now() >= deadline) {
      return false;
    }
  }
}

BusyPoll busy_poll;  // of waits for replies
bool corked = false;
bool corked_several = false;

// False: the pooler is gone, or does not read, and has been hung up on.
bool FlushWhole(Attachment* attachment) noexcept {
  bool sent = attachment->channel.Flush().ok();
  const TimePoint deadline = Now() + std::chrono::milliseconds(kSendLimitMs);
  while (sent && attachment->channel.HasUnsent()) {
    sent = PollSocket(attachment->channel.fd(), POLLOUT, deadline) && Now() < deadline &&
           attachment->channel.Flush().ok();
  }
  if (!sent) {
    ClientHangUp();
  }
  return sent;
}

// Latch, postmaster death and one socket that changes: made once, for a set is dear.
struct SocketWait {
  Poller poller;
  WaitEventSet* set = nullptr;
};

SocketWait* OneSocketWait() {
  alignas(SocketWait) static char memory[sizeof(SocketWait)];
  static SocketWait* wait = nullptr;
  if (wait == nullptr) {
    auto* made = new (memory) SocketWait;
    if (made->poller.fd() < 0) {
      ereport(ERROR,
              (errcode(ERRCODE_INSUFFICIENT_RESOURCES), errmsg("could not make an epoll set: %m")));
    }
    made->set = CreateWaitEventSet(TopMemoryContext, 3);
    AddWaitEventToSet(made->set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, nullptr);
    AddWaitEventToSet(made->set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, nullptr, nullptr);
    AddWaitEventToSet(made->set, WL_SOCKET_READABLE, made->poller.fd(), nullptr, nullptr);
    ReserveExternalFD();
    wait = made;
  }
  return wait;
}

}  // namespace

uint32 ClientNextRequest() noexcept {
  static uint32 last = 0;
  return ++last != 0 ? last : ++last;
}

bool ClientSend(const protocol::Request& request) noexcept {
  Attachment* attachment = ClientAttachment();
  if (attachment == nullptr) {
    return false;
  }
  try {
    attachment->channel.Queue(request);
    return corked || FlushWhole(attachment);
  } catch (...) {
    ClientHangUp();  // part of the frame may have gone out, so nothing can follow it
    return false;
  }
}

void ClientCork(bool several) noexcept {
  corked = true;
  corked_several = several;
}

bool ClientCorkedSeveral() noexcept { return corked && corked_several; }

void ClientUncork() noexcept {
  corked = false;
  if (Attachment* attachment = ClientAttachment();
      attachment != nullptr && attachment->channel.HasUnsent()) {
    (void)FlushWhole(attachment);
  }
}

void ClientLook() noexcept {
  Attachment* attachment = ClientAttachment();
  while (attachment != nullptr) {
    try {
      const Result<std::optional<ClientReply>> received = attachment->channel.Receive();
      if (received.ok() && received.value().has_value()) {
        HeedUnasked(attachment, received.value()->reply);
        continue;
      }
      if (received.ok()) {
        return;
      }
    } catch (...) {
      // What has come is lost with the channel.
    }
    ClientHangUp();
    return;
  }
}

Awaited ClientAwait(uint32 request, TimePoint deadline, ErrorText* error) {
  Attachment* attachment = ClientAttachment();
  attachment->pending = request;
  for (bool first = true;; first = false) {
    // The request has just gone out, so its reply is not there yet, unless it went with an attach.
    const bool wait = first && request != 0 && !attachment->channel.HasUnsent() &&
                      !attachment->channel.HasUnread() &&
                      !WaitBusily(attachment->channel.fd(), &busy_poll);
    switch (wait ? Taken::kNothing : TakeReply(attachment, request, error)) {
      case Taken::kReply:
        return Awaited::kReply;
      case Taken::kFailed:
        return Awaited::kFailed;
      case Taken::kGone:
        ClientHangUp();
        return Awaited::kGone;
      case Taken::kNothing:
        break;
    }
    if (deadline != kNever && Now() >= deadline) {
      return Awaited::kTimeout;
    }
    ModifyWaitEvent(
        attachment->wait_set, kSocketPosition,
        WL_SOCKET_READABLE | (attachment->channel.HasUnsent() ? WL_SOCKET_WRITEABLE : 0), nullptr);
    WaitEvent event;
    if (WaitEventSetWait(attachment->wait_set, WaitTime(deadline), &event, 1, PG_WAIT_EXTENSION) ==
            1 &&
        (event.events & WL_LATCH_SET) != 0) {
      ResetLatch(MyLatch);
    }
    CHECK_FOR_INTERRUPTS();
  }
}

bool ClientWaitSocket(int socket, int events, long timeout_ms, bool interruptible) {
  const TimePoint deadline =
      timeout_ms < 0 ? kNever : Now() + std::chrono::milliseconds(timeout_ms);
  const short wanted = static_cast<short>(((events & WL_SOCKET_READABLE) != 0 ? POLLIN : 0) |
                                          ((events & WL_SOCKET_WRITEABLE) != 0 ? POLLOUT : 0));
  if (!interruptible) {
    return PollSocket(socket, wanted, deadline);
  }
  const std::uint32_t epoll_events = ((events & WL_SOCKET_READABLE) != 0 ? EPOLLIN : 0u) |
                                     ((events & WL_SOCKET_WRITEABLE) != 0 ? EPOLLOUT : 0u);
  SocketWait* wait = OneSocketWait();
  for (;;) {
    CHECK_FOR_INTERRUPTS();
    if (!wait->poller.Add(socket, epoll_events, 0)) {
      ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_RESOURCES),
                      errmsg("could not watch the connection to a datanode: %m")));
    }
    WaitEvent event;
    const int ready = WaitEventSetWait(wait->set, WaitTime(deadline), &event, 1, PG_WAIT_EXTENSION);
    wait->poller.Remove(socket);
    if (ready == 1 && (event.events & WL_SOCKET_READABLE) != 0) {
      return true;
    }
    if (ready == 1) {
      ResetLatch(MyLatch);
    }
    if (deadline != kNever && Now() >= deadline) {
      return false;
    }
  }
}

}  // namespace polarx
