// Bytes and descriptors over a socketpair: order, groups, full sockets, hostile peers.
#include "engine/fd_passing.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <sys/socket.h>

#include <string>
#include <vector>

#include "descriptors.h"
#include "fake/memory.h"

namespace polarx {
namespace {

class FdPassingTest : public testing::Test {
 protected:
  void SetUp() override {
    int ends[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);  // blocking
    here_.Reset(ends[0]);
    there_.Reset(ends[1]);
  }

  // An eventfd-like thing that can be told apart: a memory file that holds its number.
  int NumberedFile(int number) {
    files_.emplace_back(::memfd_create("numbered", MFD_CLOEXEC));
    EXPECT_EQ(::pwrite(files_.back().get(), &number, sizeof(number), 0),
              static_cast<ssize_t>(sizeof(number)));
    return files_.back().get();
  }
  static int NumberOf(int file) {
    int number = -1;
    EXPECT_EQ(::pread(file, &number, sizeof(number), 0), static_cast<ssize_t>(sizeof(number)));
    return number;
  }

  ReceiveState ReceiveAll() {
    for (;;) {
      const Result<ReceiveState> received = ReceiveWithFds(there_.get(), &data_, &fds_);
      EXPECT_TRUE(received.ok()) << received.status().message();
      if (!received.ok() || received.value() != ReceiveState::kData) {
        return received.ok() ? received.value() : ReceiveState::kEndOfFile;
      }
    }
  }

  UniqueFd here_, there_;
  std::vector<UniqueFd> files_;
  std::string data_;
  std::vector<UniqueFd> fds_;
};

TEST_F(FdPassingTest, CarriesBytesAndDescriptorsInOrder) {
  const std::vector<int> sent = {NumberedFile(0), NumberedFile(1), NumberedFile(2)};
  const Result<SendProgress> progress = SendWithFds(here_.get(), "hello", sent);
  ASSERT_TRUE(progress.ok());
  EXPECT_EQ(progress.value().bytes, 5u);
  EXPECT_EQ(progress.value().fds, 3u);
  EXPECT_EQ(ReceiveAll(), ReceiveState::kWouldBlock);
  EXPECT_EQ(data_, "hello");
  ASSERT_EQ(fds_.size(), 3u);
  for (int i = 0; i < 3; ++i) {
    const int fd = fds_[static_cast<std::size_t>(i)].get();
    EXPECT_EQ(NumberOf(fd), i);
    EXPECT_EQ(::fcntl(fd, F_GETFD), FD_CLOEXEC);
  }
}

TEST_F(FdPassingTest, SendsMoreThanOneMessageTakes) {
  std::vector<int> sent;
  for (int i = 0; i < 700; ++i) {
    sent.push_back(NumberedFile(i));
  }
  const std::string data(1000, 'x');
  const Result<SendProgress> progress = SendWithFds(here_.get(), data, sent);
  ASSERT_TRUE(progress.ok());
  EXPECT_EQ(progress.value().bytes, 1000u);
  EXPECT_EQ(progress.value().fds, 700u);
  ReceiveAll();
  EXPECT_EQ(data_, data);
  ASSERT_EQ(fds_.size(), 700u);
  for (int i = 0; i < 700; ++i) {
    EXPECT_EQ(NumberOf(fds_[static_cast<std::size_t>(i)].get()), i);
  }
}

TEST_F(FdPassingTest, DescriptorsAreThereNoLaterThanTheFirstBytes) {
  std::vector<int> sent;
  for (int i = 0; i < 260; ++i) {
    sent.push_back(NumberedFile(i));
  }
  ASSERT_TRUE(SendWithFds(here_.get(), "ab", sent).ok());  // as few bytes as may be
  ASSERT_TRUE(ReceiveWithFds(there_.get(), &data_, &fds_).ok());
  EXPECT_EQ(data_, "a");
  EXPECT_EQ(fds_.size(), 250u);
  ASSERT_TRUE(ReceiveWithFds(there_.get(), &data_, &fds_).ok());
  EXPECT_EQ(data_, "ab");
  EXPECT_EQ(fds_.size(), 260u);
}

TEST_F(FdPassingTest, AFullSocketTakesAPartAndGoesOnLater) {
  std::string all;
  for (int i = 0; i < 400'000; ++i) {
    all += std::to_string(i) + ' ';
  }
  const std::vector<int> fds = {NumberedFile(5)};
  std::size_t bytes = 0;
  std::size_t sent_fds = 0;
  int full = 0;
  while (bytes < all.size()) {
    const Result<SendProgress> progress = SendWithFds(
        here_.get(), std::string_view(all).substr(bytes), std::span(fds).subspan(sent_fds));
    ASSERT_TRUE(progress.ok());
    bytes += progress.value().bytes;
    sent_fds += progress.value().fds;
    if (progress.value().bytes == 0) {
      ++full;
      ReceiveAll();
    }
  }
  ReceiveAll();
  EXPECT_GT(full, 0);
  EXPECT_EQ(data_, all);
  ASSERT_EQ(fds_.size(), 1u);
  EXPECT_EQ(NumberOf(fds_[0].get()), 5);
}

TEST_F(FdPassingTest, NothingToSendIsNoError) {
  const Result<SendProgress> progress = SendWithFds(here_.get(), "", {});
  ASSERT_TRUE(progress.ok());
  EXPECT_EQ(progress.value().bytes, 0u);
}

TEST_F(FdPassingTest, TellsAnEmptySocketFromAnEnd) {
  EXPECT_EQ(ReceiveAll(), ReceiveState::kWouldBlock);
  here_.Reset();
  EXPECT_EQ(ReceiveAll(), ReceiveState::kEndOfFile);
}

TEST_F(FdPassingTest, APeerThatIsGoneIsAnErrorAndNoSignal) {
  there_.Reset();
  const Result<SendProgress> progress = SendWithFds(here_.get(), "hello", {});
  ASSERT_FALSE(progress.ok());
  EXPECT_EQ(progress.status().sqlstate(), "08006");
  EXPECT_NE(progress.status().message().find("Broken pipe"), std::string::npos);
}

TEST_F(FdPassingTest, UnwantedDescriptorsDoNotStay) {
  const std::vector<int> sent = {NumberedFile(0), NumberedFile(1)};
  ASSERT_TRUE(SendWithFds(here_.get(), "garbage", sent).ok());
  const std::size_t before = OpenDescriptors();
  const Result<ReceiveState> received = ReceiveWithFds(there_.get(), &data_, nullptr);
  ASSERT_TRUE(received.ok());
  EXPECT_EQ(received.value(), ReceiveState::kData);
  EXPECT_EQ(data_, "garbage");
  EXPECT_EQ(OpenDescriptors(), before);
}

TEST_F(FdPassingTest, AReceiverWithoutFreeDescriptorsGetsAnErrorAndKeepsNone) {
  const std::vector<int> sent = {NumberedFile(0), NumberedFile(1), NumberedFile(2)};
  ASSERT_TRUE(SendWithFds(here_.get(), "hello", sent).ok());
  // Room for one more descriptor.
  UniqueFd lowest(::dup(0));
  rlimit old{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &old), 0);
  const rlimit tight{static_cast<rlim_t>(lowest.get()) + 1, old.rlim_max};
  const int lowest_fd = lowest.get();
  lowest.Reset();
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &tight), 0);
  const Result<ReceiveState> received = ReceiveWithFds(there_.get(), &data_, &fds_);
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &old), 0);
  ASSERT_FALSE(received.ok());
  EXPECT_EQ(received.status().sqlstate(), "53000");
  EXPECT_TRUE(fds_.empty());
  EXPECT_EQ(::fcntl(lowest_fd, F_GETFD), -1) << "the one that fitted was left open";
}

TEST_F(FdPassingTest, ErrorOfABadDescriptorLeavesTheCallersOwn) {
  const int good = NumberedFile(1);
  const std::vector<int> sent = {good, 1'000'000};
  EXPECT_FALSE(SendWithFds(here_.get(), "x", sent).ok());
  EXPECT_EQ(NumberOf(good), 1);
  EXPECT_EQ(ReceiveAll(), ReceiveState::kWouldBlock);
}

TEST_F(FdPassingTest, WhatCannotBeKeptForWantOfMemoryIsClosed) {
  if (!NoMemory::kWorks) {
    GTEST_SKIP() << "under a sanitizer memory cannot be used up";
  }
  const std::vector<int> sent = {NumberedFile(0), NumberedFile(1), NumberedFile(2)};
  // The reply may fail to be kept at its descriptors, or at its bytes.
  for (int allowed = 0; allowed < 2; ++allowed) {
    const std::string bytes(100, 'x');
    ASSERT_TRUE(SendWithFds(here_.get(), bytes, sent).ok());
    const std::size_t before = OpenDescriptors();
    std::vector<UniqueFd> received;
    std::string data;
    {
      const NoMemory no_memory(allowed);
      EXPECT_THROW((void)ReceiveWithFds(there_.get(), &data, &received), std::bad_alloc);
    }
    EXPECT_EQ(received.size(), allowed == 0 ? 0u : 3u);
    received.clear();
    EXPECT_EQ(OpenDescriptors(), before);
  }
}

}  // namespace
}  // namespace polarx
