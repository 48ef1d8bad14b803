// What this process has open: what tests compare before and after.
#pragma once

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstddef>
#include <set>
#include <utility>
#include <vector>

#include "engine/unique_fd.h"

namespace polarx {

// Those below 4096; no test opens more.
inline std::set<int> Descriptors() {
  std::set<int> open;
  for (int fd = 0; fd < 4096; ++fd) {
    if (::fcntl(fd, F_GETFD) >= 0) {
      open.insert(fd);
    }
  }
  return open;
}

inline std::size_t OpenDescriptors() { return Descriptors().size(); }

// Between Exhaust and Allow, or its own end, this process has no descriptor free.
class ExhaustedDescriptors {
 public:
  ExhaustedDescriptors() = default;
  ExhaustedDescriptors(const ExhaustedDescriptors&) = delete;
  ExhaustedDescriptors& operator=(const ExhaustedDescriptors&) = delete;
  ~ExhaustedDescriptors() { Allow(); }

  // No number below the limit, which is 64 from now on, is free.
  void Exhaust() {
    getrlimit(RLIMIT_NOFILE, &before_);
    rlimit tight = before_;
    tight.rlim_cur = 64;
    int fd = 0;
    while ((fd = dup(0)) >= 0 && fd < 64) {
      taken_.emplace_back(fd);
    }
    close(fd);
    setrlimit(RLIMIT_NOFILE, &tight);
    changed_ = true;
  }
  void Allow() {
    if (std::exchange(changed_, false)) {
      setrlimit(RLIMIT_NOFILE, &before_);
      taken_.clear();
    }
  }

 private:
  rlimit before_{};
  bool changed_ = false;
  std::vector<UniqueFd> taken_;
};

}  // namespace polarx
