// A reset that a session sends, and the answer that it takes by itself.
#include "engine/sent_reset.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "engine/server_messages.h"

namespace polarx {
namespace {

using namespace std::string_literals;
using namespace std::string_view_literals;

std::string Message(char type, std::string_view body) {
  std::string out;
  AppendMessage(type, body, &out);
  return out;
}
std::string Ready(char state = 'I') { return Message('Z', std::string_view(&state, 1)); }
const std::string kDone = Message('C', "DISCARD ALL\0"sv);
const std::string kError = Message('E', "SERROR\0C57014\0Mcanceling statement\0\0"sv);
const std::string kZone = Message('S', "TimeZone\0UTC\0"sv);

class SentResetTest : public ::testing::Test {
 protected:
  SentResetTest() { EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends_.data()), 0); }
  ~SentResetTest() override {
    ::close(ends_[0]);
    ::close(ends_[1]);
  }
  void Say(std::string_view bytes) {
    ASSERT_EQ(::send(ends_[1], bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
  }
  std::string Unread() {
    char bytes[100];
    const ssize_t got = ::recv(ends_[0], bytes, sizeof(bytes), MSG_DONTWAIT);
    return std::string(bytes, static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
  }

  std::array<int, 2> ends_{-1, -1};
};

TEST_F(SentResetTest, IsOneQuery) {
  ASSERT_TRUE(SendReset(ends_[0], "DISCARD ALL"));
  char bytes[100];
  ASSERT_EQ(::recv(ends_[1], bytes, sizeof(bytes), 0), 17);
  EXPECT_EQ(std::string_view(bytes, 17),
            "Q\0\0\0\x10"
            "DISCARD ALL\0"sv);
}

TEST_F(SentResetTest, ALongTextIsNotSent) {
  EXPECT_TRUE(SendReset(ends_[0], std::string(kLongestReset, ' ')));
  EXPECT_FALSE(SendReset(ends_[0], std::string(kLongestReset + 1, ' ')));
}

TEST_F(SentResetTest, NothingIsSentToWhoHasGone) {
  ::shutdown(ends_[0], SHUT_WR);
  EXPECT_FALSE(SendReset(ends_[0], "DISCARD ALL"));
}

// --- what a session takes -----------------------------------------------------------------------

TEST_F(SentResetTest, AsLongAsNothingHasComeNothingIsThere) {
  EXPECT_FALSE(LookForPlainAnswer(ends_[0]).come);
}

TEST_F(SentResetTest, APlainAnswerIsTakenAndNoMore) {
  Say(kDone + Ready() + kZone);
  const PlainAnswer answer = LookForPlainAnswer(ends_[0]);
  EXPECT_TRUE(answer.come);
  EXPECT_EQ(answer.size, kDone.size() + Ready().size());
  EXPECT_FALSE(answer.alone);
  ASSERT_TRUE(TakePlainAnswer(ends_[0], answer.size));
  EXPECT_EQ(Unread(), kZone);
}

TEST_F(SentResetTest, SoIsOneWithRows) {
  Say(Message('T', "\0\0"sv) + Message('D', "\0\0"sv) + kDone + Ready());
  const PlainAnswer answer = LookForPlainAnswer(ends_[0]);
  EXPECT_TRUE(answer.alone);
  ASSERT_TRUE(TakePlainAnswer(ends_[0], answer.size));
  EXPECT_EQ(Unread(), "");
}

TEST_F(SentResetTest, OtherAnswersAreLeftAlone) {
  const std::string cases[] = {
      kError + Ready(),
      kDone + kError + Ready(),
      kZone + kDone + Ready(),
      Message('N', "SNOTICE\0\0"sv) + kDone + Ready(),
      Message('G', "\0\0"sv) + kDone + Ready(),
      Ready(),
      kDone + Ready('T'),
      kDone + Ready('E'),
      kDone + Message('Z', "II"),
      kDone,
      kDone.substr(0, 3),
      kDone + Ready().substr(0, 5),
      "C\0\0\0\0"s,
      "C\xff\xff\xff\xff"s,
      Message('C', std::string(2000, 'x')) + Ready(),
      Message('D', "\0\1"sv) + kDone + Ready(),
      Message('D', "\0\1\0\0\0\5abcd"sv) + kDone + Ready(),
  };
  for (const std::string& bytes : cases) {
    Say(bytes);
    const PlainAnswer answer = LookForPlainAnswer(ends_[0]);
    EXPECT_TRUE(answer.come) << bytes;
    EXPECT_EQ(answer.size, 0u) << bytes;
    while (!Unread().empty()) {
    }
  }
}

TEST_F(SentResetTest, TheEndIsSomethingThatHasCome) {
  ::close(std::exchange(ends_[1], -1));
  const PlainAnswer answer = LookForPlainAnswer(ends_[0]);
  EXPECT_TRUE(answer.come);
  EXPECT_EQ(answer.size, 0u);
}

}  // namespace
}  // namespace polarx
