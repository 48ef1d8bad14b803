// An epoll set over descriptors that know their place by a number; one thread's.
#pragma once

#include <sys/epoll.h>

#include <cstdint>
#include <span>

#include "core/time.h"
#include "engine/unique_fd.h"

namespace polarx {

class Poller {
 public:
  Poller();
  int fd() const { return epoll_.get(); }

  // `key` comes back with every event. False: the kernel refuses (memory, or a foreign descriptor).
  [[nodiscard]] bool Add(int fd, std::uint32_t events, std::uint64_t key);
  [[nodiscard]] bool Change(int fd, std::uint32_t events, std::uint64_t key);
  void Remove(int fd);  // always before the descriptor is closed

  // Events that are there, waiting until `deadline` for the first (kNever: without end; a deadline
  // in the past: not at all). Empty on time-out and on EINTR. Valid until the next call.
  std::span<const epoll_event> Wait(TimePoint deadline);

 private:
  static constexpr int kBatch = 256;
  UniqueFd epoll_;
  epoll_event events_[kBatch];
};

}  // namespace polarx
