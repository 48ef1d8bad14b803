// A session's socket: what goes out goes in bounded pieces, and a grant can be taken back as long
// as nothing of it has gone out.
#include "engine/session.h"

#include <gtest/gtest.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <memory>
#include <string>
#include <vector>

#include "engine/fd_passing.h"
#include "too_many_fds.h"

namespace polarx {
namespace {

using GrantSent = Session::GrantSent;
using Flushed = Session::Flushed;

class SessionTest : public ::testing::Test {
 protected:
  SessionTest() {
    int ends[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    there_.Reset(ends[1]);
    session_ = std::make_unique<Session>(1, UniqueFd(ends[0]), 1, Now());
  }
  void Grant(std::uint32_t request, int leases) {
    protocol::Granted granted{request, {}};
    granted.leases.resize(static_cast<std::size_t>(leases));
    session_->Send(granted, std::vector<int>(static_cast<std::size_t>(leases), 0));
  }
  Flushed Flush() {
    const Result<Flushed> flushed = session_->Flush();
    EXPECT_TRUE(flushed.ok());
    return flushed.value();
  }
  // The next reply that has come.
  protocol::Reply Reply() {
    std::vector<UniqueFd> fds;
    for (;;) {
      const Result<std::size_t> length = protocol::FrameLength(in_, protocol::kMaxReplySize);
      EXPECT_TRUE(length.ok());
      if (length.value() > 0 && in_.size() >= length.value()) {
        Result<protocol::Reply> reply = protocol::DecodeReply(in_.substr(0, length.value()));
        in_.erase(0, length.value());
        EXPECT_TRUE(reply.ok());
        return reply.value();
      }
      const Result<ReceiveState> received = ReceiveWithFds(there_.get(), &in_, &fds);
      if (!received.ok() || received.value() != ReceiveState::kData) {
        ADD_FAILURE() << "no reply has come";
        return protocol::Done{};
      }
      fds_received_ += fds.size();
      fds.clear();
    }
  }

  UniqueFd there_;
  std::unique_ptr<Session> session_;
  std::string in_;
  std::size_t fds_received_ = 0;
};

TEST_F(SessionTest, AFlushSendsABoundedPieceThoughThereIsRoom) {
  constexpr int kPiece = 256 * 1024;
  const int much = 1 << 20;  // as much as the system allows, which is more than a piece
  ASSERT_EQ(setsockopt(session_->socket.get(), SOL_SOCKET, SO_SNDBUF, &much, sizeof(much)), 0);
  session_->SendFrame(std::string(4u << 20, 'x'));
  const auto sent = [this] {
    int bytes = 0;
    EXPECT_EQ(ioctl(there_.get(), FIONREAD, &bytes), 0);
    return bytes;
  };
  EXPECT_EQ(Flush(), Flushed::kFull);
  EXPECT_EQ(sent(), kPiece);
  EXPECT_EQ(Flush(), Flushed::kFull);
  EXPECT_GT(sent(), kPiece) << "there was room";
}

TEST_F(SessionTest, AGrantIsTakenBackWhileNothingOfItHasGoneOut) {
  session_->SendFrame(std::string(4u << 20, '\0'));  // more than the socket takes
  Grant(5, 2);
  session_->Send(protocol::Done{6, 0});
  EXPECT_EQ(Flush(), Flushed::kFull);
  EXPECT_EQ(session_->SentOfGrant(5), GrantSent::kNothing);
  EXPECT_EQ(session_->SentOfGrant(4), GrantSent::kAll) << "there is none";
  session_->ReplaceGrant(5, protocol::Failed{5, Status("57014", "request was withdrawn")});
  EXPECT_EQ(session_->SentOfGrant(5), GrantSent::kAll);
  std::string bytes(1 << 20, '\0');
  for (std::size_t got = 0; got < 4u << 20;) {
    const ssize_t more =
        recv(there_.get(), bytes.data(), std::min(bytes.size(), (4u << 20) - got), MSG_DONTWAIT);
    got += static_cast<std::size_t>(std::max<ssize_t>(more, 0));
    (void)Flush();
  }
  EXPECT_EQ(Flush(), Flushed::kAll);
  EXPECT_EQ(std::get<protocol::Failed>(Reply()).request, 5u);
  EXPECT_EQ(std::get<protocol::Done>(Reply()).request, 6u);
  EXPECT_EQ(fds_received_, 0u);
}

TEST_F(SessionTest, TooManyDescriptorsUnderWayAreNotAFullSocket) {
  session_->Send(protocol::Done{4, 0});
  Grant(5, 2);
  {
    const TooManyFds too_many;
    EXPECT_EQ(Flush(), Flushed::kTryLater);
    EXPECT_EQ(session_->SentOfGrant(5), GrantSent::kNothing);
    EXPECT_EQ(std::get<protocol::Done>(Reply()).request, 4u) << "what came before goes out";
  }
  EXPECT_EQ(Flush(), Flushed::kAll);
  EXPECT_EQ(std::get<protocol::Granted>(Reply()).request, 5u);
  EXPECT_EQ(fds_received_, 2u);
}

TEST_F(SessionTest, OfALargeGrantSomeDescriptorsMayHaveGoneOut) {
  constexpr int kLeases = 4000;  // sixteen messages
  const int little = 1;          // room for a few of them
  ASSERT_EQ(setsockopt(session_->socket.get(), SOL_SOCKET, SO_SNDBUF, &little, sizeof(little)), 0);
  Grant(5, kLeases);
  bool some = false;
  while (Flush() != Flushed::kAll) {
    some = some || session_->SentOfGrant(5) == GrantSent::kSome;
    std::vector<UniqueFd> fds;
    (void)ReceiveWithFds(there_.get(), &in_, &fds);
    fds_received_ += fds.size();
  }
  EXPECT_TRUE(some);
  EXPECT_EQ(session_->SentOfGrant(5), GrantSent::kAll);
  EXPECT_EQ(std::get<protocol::Granted>(Reply()).leases.size(), std::size_t{kLeases});
  EXPECT_EQ(fds_received_, std::size_t{kLeases});
}

}  // namespace
}  // namespace polarx
