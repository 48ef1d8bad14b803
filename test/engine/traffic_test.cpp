// The kernel's count of what went over a connection.
#include "engine/traffic.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <string>

#include "engine/unique_fd.h"

namespace polarx {
namespace {

struct Pair {
  UniqueFd here;
  UniqueFd there;
};

Pair Connected() {
  const UniqueFd listener(::socket(AF_INET, SOCK_STREAM, 0));
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  auto* any = reinterpret_cast<sockaddr*>(&address);
  EXPECT_EQ(::bind(listener.get(), any, size), 0);
  EXPECT_EQ(::getsockname(listener.get(), any, &size), 0);
  EXPECT_EQ(::listen(listener.get(), 1), 0);
  Pair pair{.here = UniqueFd(::socket(AF_INET, SOCK_STREAM, 0)), .there = {}};
  EXPECT_EQ(::connect(pair.here.get(), any, size), 0);
  pair.there.Reset(::accept(listener.get(), nullptr, nullptr));
  return pair;
}

void Move(const UniqueFd& from, const UniqueFd& to, std::size_t count) {
  std::string bytes(count, 'x');
  ASSERT_EQ(::send(from.get(), bytes.data(), count, 0), static_cast<ssize_t>(count));
  ASSERT_EQ(::recv(to.get(), bytes.data(), count, MSG_WAITALL), static_cast<ssize_t>(count));
}

TEST(TrafficTest, CountsBothDirectionsOfATcpConnection) {
  const Pair pair = Connected();
  EXPECT_EQ(BytesMoved(pair.here.get()), 0U);
  Move(pair.here, pair.there, 1000);
  EXPECT_EQ(BytesMoved(pair.here.get()), 1000U);
  Move(pair.there, pair.here, 234);
  EXPECT_EQ(BytesMoved(pair.here.get()), 1234U);
  EXPECT_EQ(BytesMoved(pair.there.get()), 1234U);
}

TEST(TrafficTest, NobodyCountsForAnotherSocket) {
  std::array<int, 2> ends = {};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends.data()), 0);
  const UniqueFd one(ends[0]);
  const UniqueFd other(ends[1]);
  EXPECT_EQ(BytesMoved(one.get()), std::nullopt);
  EXPECT_EQ(BytesMoved(-1), std::nullopt);
}

}  // namespace
}  // namespace polarx
