// One thread waits for its descriptors here.
#include "engine/poller.h"

#include <algorithm>
#include <chrono>
#include <limits>

namespace polarx {
namespace {

bool Control(int epoll, int operation, int fd, std::uint32_t events, std::uint64_t key) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = key;
  return ::epoll_ctl(epoll, operation, fd, &event) == 0;
}

// Rounded up, so that a deadline has passed when the wait is over.
int WaitTime(TimePoint deadline) { return deadline == kNever ? -1 : MillisecondsUntil(deadline); }

}  // namespace

Poller::Poller() : epoll_(::epoll_create1(EPOLL_CLOEXEC)) {}

bool Poller::Add(int fd, std::uint32_t events, std::uint64_t key) {
  return Control(epoll_.get(), EPOLL_CTL_ADD, fd, events, key);
}

bool Poller::Change(int fd, std::uint32_t events, std::uint64_t key) {
  return Control(epoll_.get(), EPOLL_CTL_MOD, fd, events, key);
}

void Poller::Remove(int fd) { (void)Control(epoll_.get(), EPOLL_CTL_DEL, fd, 0, 0); }

std::span<const epoll_event> Poller::Wait(TimePoint deadline) {
  const int count = ::epoll_wait(epoll_.get(), events_, kBatch, WaitTime(deadline));
  return {events_, static_cast<std::size_t>(std::max(count, 0))};
}

}  // namespace polarx
