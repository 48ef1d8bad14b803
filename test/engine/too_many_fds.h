// More descriptors under way than a user may have: sendmsg then says ETOOMANYREFS.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/capability.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

#include "engine/fd_passing.h"
#include "engine/unique_fd.h"

namespace polarx {

// While it lives, this thread cannot send another descriptor. The limit is that of open files, and
// a thread with certain capabilities is above it: they are laid aside. What a user has under way is
// counted over all processes: its own alone are too many, and one process at a time has so many.
class TooManyFds {
 public:
  TooManyFds() {
    EXPECT_EQ(flock(turn_.get(), LOCK_EX), 0);
    EXPECT_EQ(::syscall(SYS_capget, &header_, before_), 0);
    __user_cap_data_struct less[2] = {before_[0], before_[1]};
    less[0].effective &= ~(1u << CAP_SYS_RESOURCE | 1u << CAP_SYS_ADMIN);
    EXPECT_EQ(::syscall(SYS_capset, &header_, less), 0);
    int ends[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    ends_[0].Reset(ends[0]);
    ends_[1].Reset(ends[1]);
    const std::vector<int> some(kLimit / 10, ends[0]);
    for (int i = 0; i < 11; ++i) {
      const Result<SendProgress> sent = SendWithFds(ends[0], "x", some);
      EXPECT_TRUE(sent.ok() && sent.value().fds == some.size());
    }
    getrlimit(RLIMIT_NOFILE, &limit_);
    rlimit tight = limit_;
    tight.rlim_cur = kLimit;
    EXPECT_EQ(setrlimit(RLIMIT_NOFILE, &tight), 0);
    const Result<SendProgress> sent = SendWithFds(ends[0], "x", some);
    EXPECT_TRUE(sent.ok() && sent.value().too_many_fds);
  }
  ~TooManyFds() {
    ends_[1].Reset();  // nothing is under way any more
    ends_[0].Reset();
    setrlimit(RLIMIT_NOFILE, &limit_);
    EXPECT_EQ(::syscall(SYS_capset, &header_, before_), 0);
  }
  TooManyFds(const TooManyFds&) = delete;
  TooManyFds& operator=(const TooManyFds&) = delete;

 private:
  static constexpr rlim_t kLimit = 512;
  const UniqueFd turn_{open("/proc/self/exe", O_RDONLY | O_CLOEXEC)};
  __user_cap_header_struct header_{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct before_[2]{};
  rlimit limit_{};
  UniqueFd ends_[2];
};

}  // namespace polarx
