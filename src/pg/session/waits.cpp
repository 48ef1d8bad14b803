// A backend waits for a socket; on its only thread.
#include <poll.h>

#include <cerrno>
#include <chrono>
#include <new>

#include "core/time.h"
#include "engine/poller.h"

#include "pg/session/waits.h"
#include "pg/prelude.h"

namespace polarx {
namespace {

constexpr int kLongestWaitMs = 60'000;

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

}  // namespace

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
    const int ready =
        WaitEventSetWait(wait->set, WaitTime(deadline), &event, 1, WaitEventOf(Wait::kDatanode));
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
