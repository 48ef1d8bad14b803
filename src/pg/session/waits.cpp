// A backend waits for a socket; on its only thread.
#include <libpq-fe.h>
#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <new>

#include "core/time.h"
#include "engine/poller.h"

#include "pg/session/attachment.h"
#include "pg/session/awaits.h"
#include "pg/session/waits.h"
#include "pg/prelude.h"

namespace polarx {
namespace {

constexpr int kLongestWaitMs = 60'000;
constexpr int kMomentMs = 50;  // after which interrupts are looked for

// Returns the time left of `deadline` for one wait, rounded up.
long WaitTime(TimePoint deadline) { return MillisecondsUntil(deadline, kLongestWaitMs); }

// Polls until `deadline`, signals or not. Returns false if the time is over.
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
    made->set = MakeWaitEventSet(3);
    AddWaitEventToSet(made->set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, nullptr);
    AddWaitEventToSet(made->set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, nullptr, nullptr);
    AddWaitEventToSet(made->set, WL_SOCKET_READABLE, made->poller.fd(), nullptr, nullptr);
    ReserveExternalFD();
    wait = made;
  }
  return wait;
}

struct Watched {
  int socket;
  int events;  // WL_SOCKET_…
};

short PollEvents(int events) {
  return static_cast<short>(((events & WL_SOCKET_READABLE) != 0 ? POLLIN : 0) |
                            ((events & WL_SOCKET_WRITEABLE) != 0 ? POLLOUT : 0));
}

std::uint32_t EpollEvents(int events) {
  return ((events & WL_SOCKET_READABLE) != 0 ? EPOLLIN : 0u) |
         ((events & WL_SOCKET_WRITEABLE) != 0 ? EPOLLOUT : 0u);
}

void Watch(Poller* poller, const Watched* watched, int count) {
  for (int i = 0; i < count; ++i) {
    if (!poller->Add(watched[i].socket, EpollEvents(watched[i].events), 0)) {
      while (i > 0) {
        poller->Remove(watched[--i].socket);
      }
      ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_RESOURCES),
                      errmsg("could not watch the connection to a datanode: %m")));
    }
  }
}

// Waits for one of them, handling interrupts. False: time is over.
bool WaitInterruptibly(const Watched* watched, int count, TimePoint deadline) {
  SocketWait* wait = OneSocketWait();
  for (;;) {
    CHECK_FOR_INTERRUPTS();
    Watch(&wait->poller, watched, count);
    WaitEvent event;
    const int ready =
        WaitEventSetWait(wait->set, WaitTime(deadline), &event, 1, WaitEventOf(Wait::kDatanode));
    for (int i = 0; i < count; ++i) {
      wait->poller.Remove(watched[i].socket);
    }
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

}  // namespace

bool ClientWaitSocket(int socket, int events, long timeout_ms, bool interruptible) {
  const TimePoint deadline =
      timeout_ms < 0 ? kNever : Now() + std::chrono::milliseconds(timeout_ms);
  const Watched watched = {socket, events};
  return interruptible ? WaitInterruptibly(&watched, 1, deadline)
                       : PollSocket(socket, PollEvents(events), deadline);
}

bool ClientWaitOrHear(int socket, int events, TimePoint deadline) {
  Watched watched[2] = {{socket, events}, {}};
  int count = 1;
  if (const Attachment* attachment = ClientAttachment(); attachment != nullptr) {
    watched[count++] = {attachment->channel.fd(), WL_SOCKET_READABLE};
  }
  (void)WaitInterruptibly(watched, count, deadline);
  ClientHeedRecalls();
  pollfd look = {socket, PollEvents(events), 0};
  return ::poll(&look, 1, 0) > 0;
}

void ClientWaitLease(const PolarxLease* lease, int events, TimePoint deadline, bool interruptible) {
  Watched watched[2];
  int count = 0;
  if (events != 0) {
    watched[count++] = {PQsocket(lease->conn), events};
  }
  if (const Attachment* attachment = ClientAttachment(); attachment != nullptr) {
    watched[count++] = {attachment->channel.fd(), WL_SOCKET_READABLE};
  }
  if (interruptible) {
    (void)WaitInterruptibly(watched, count, deadline);
  } else {
    pollfd waits[2];
    for (int i = 0; i < count; ++i) {
      waits[i] = {watched[i].socket, PollEvents(watched[i].events), 0};
    }
    const long left = std::min<long>(WaitTime(deadline), kMomentMs);
    (void)::poll(waits, static_cast<nfds_t>(count), static_cast<int>(left));
  }
  ClientHeedRecalls();
}

}  // namespace polarx
