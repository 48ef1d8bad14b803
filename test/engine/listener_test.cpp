// The listener leaves its socket alone while it cannot accept, and never busily.
#include "engine/listener.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <utility>
#include <vector>

#include "descriptors.h"

namespace polarx {
namespace {

constexpr std::uint64_t kKey = 7;
const TimePoint kStart = TimePoint{} + std::chrono::hours(1);
constexpr Duration kRest = std::chrono::milliseconds(100);

class ListenerTest : public ::testing::Test {
 protected:
  ListenerTest() {
    // The kernel gives it a name.
    UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    EXPECT_EQ(bind(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof(sa_family_t)), 0);
    EXPECT_EQ(listen(socket.get(), 8), 0);
    fd_ = socket.get();
    size_ = sizeof(address_);
    EXPECT_EQ(getsockname(fd_, reinterpret_cast<sockaddr*>(&address_), &size_), 0);
    socket_ = std::move(socket);
  }

  UniqueFd Knock() {
    UniqueFd guest(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    EXPECT_EQ(connect(guest.get(), reinterpret_cast<sockaddr*>(&address_), size_), 0);
    return guest;
  }
  bool Tells() { return !poller_.Wait(TimePoint{}).empty(); }

  Poller poller_;
  LogQueue log_;
  UniqueFd socket_;
  int fd_ = -1;
  sockaddr_un address_{};
  socklen_t size_ = 0;
  ExhaustedDescriptors descriptors_;
};

TEST_F(ListenerTest, LetsInWhoKnocks) {
  Listener listener(std::move(socket_), geteuid(), &poller_, &log_);
  ASSERT_TRUE(listener.Watch(kKey));
  EXPECT_TRUE(listener.Accept(kStart).empty());
  const UniqueFd first = Knock(), second = Knock();
  ASSERT_TRUE(Tells());
  const std::vector<Guest> guests = listener.Accept(kStart);
  ASSERT_EQ(guests.size(), 2u);
  EXPECT_EQ(guests[0].pid, getpid());
  EXPECT_EQ(listener.listen_again_at(), kNever);
}

TEST_F(ListenerTest, RestsWithoutADescriptorAndListensAgainInTime) {
  const UniqueFd guest = Knock();
  descriptors_.Exhaust();
  Listener listener(std::move(socket_), geteuid(), &poller_, &log_);
  ASSERT_TRUE(listener.Watch(kKey));
  EXPECT_TRUE(listener.Accept(kStart).empty());
  EXPECT_EQ(listener.listen_again_at(), kStart + kRest);
  EXPECT_FALSE(Tells()) << "who knocks would wake us again and again";
  descriptors_.Allow();
  listener.ListenAgain(kStart);
  EXPECT_EQ(listener.listen_again_at(), kStart + kRest) << "not yet";
  listener.ListenAgain(kStart + kRest);
  EXPECT_EQ(listener.listen_again_at(), kNever);
  EXPECT_TRUE(Tells());
  EXPECT_EQ(listener.Accept(kStart).size(), 1u);
}

TEST_F(ListenerTest, WhereItCannotBeWatchedAgainAnotherTimeIsSet) {
  const UniqueFd guest = Knock();
  descriptors_.Exhaust();
  Listener listener(std::move(socket_), geteuid(), &poller_, &log_);
  ASSERT_TRUE(listener.Watch(kKey));
  (void)listener.Accept(kStart);
  descriptors_.Allow();
  ASSERT_TRUE(poller_.Add(fd_, EPOLLIN, kKey + 1));  // once more is refused
  TimePoint now = kStart + kRest;
  for (int i = 0; i < 3; ++i) {
    listener.ListenAgain(now);
    ASSERT_EQ(listener.listen_again_at(), now + kRest);
    now += kRest;
  }
  poller_.Remove(fd_);
  listener.ListenAgain(now);
  EXPECT_EQ(listener.listen_again_at(), kNever);
}

}  // namespace
}  // namespace polarx
