// What a datanode may say in a startup without blocking a worker thread or using up its memory.
#include "engine/startup_guard.h"

#include <gtest/gtest.h>

#include <vector>

#include "raw_datanode.h"

namespace polarx {
namespace {

using Step = StartupGuard::Step;

const std::string kSasl("SCRAM-SHA-256\0\0", 15);

std::string Challenge(const std::string& iterations, std::size_t padding = 0) {
  return AuthenticationMessage(11, "r=abc" + std::string(padding, 'x') + ",s=YWJj,i=" + iterations);
}

// Of a guard that has seen nothing before.
StartupGuard::Verdict Look(const std::string& bytes, bool logged_in = false) {
  return StartupGuard().Look(bytes, bytes.size(), logged_in);
}

TEST(StartupGuard, LetsThroughWhatEndsAtOnce) {
  std::vector<std::string> messages = {Challenge("4096"),
                                       Challenge("1000000"),
                                       Message('x', "abc"),
                                       AuthenticationMessage(11),
                                       AuthenticationMessage(11, ",i="),
                                       AuthenticationMessage(11, ",i=-1")};
  for (unsigned kind : {0U, 3U, 5U, 10U, 12U, 99U}) {
    messages.push_back(AuthenticationMessage(kind, "SCRAM-SHA-256"));
  }
  for (const std::string& message : messages) {
    EXPECT_EQ(Look(message).step, Step::kFeed) << message;
    EXPECT_EQ(Look(message).size, message.size()) << message;
    EXPECT_EQ(Look(message + message.substr(0, 7)).size, message.size()) << message;
  }
}

TEST(StartupGuard, RefusesKerberos) {
  for (unsigned kind : {7U, 8U, 9U}) {
    const StartupGuard::Verdict verdict = Look(AuthenticationMessage(kind));
    EXPECT_EQ(verdict.step, Step::kRefuse) << kind;
    EXPECT_TRUE(verdict.demand);
    EXPECT_EQ(verdict.why, "it demands GSSAPI authentication, which the pooler does not offer");
  }
}

TEST(StartupGuard, RefusesEndlessIterations) {
  for (const char* number : {"1000001", "2147483647", "99999999999999999999999999"}) {
    EXPECT_EQ(Look(Challenge(number)).step, Step::kRefuse) << number;
    EXPECT_EQ(Look(Challenge(number, 1100)).step, Step::kRefuse) << "of a long message";
    EXPECT_EQ(Look(AuthenticationMessage(3) + Challenge(number)).step, Step::kRefuse)
        << "behind a harmless one";
  }
}

TEST(StartupGuard, WaitsUntilAMessageIsWhole) {
  const std::string challenge = Challenge("9999999");
  StartupGuard guard;
  for (std::size_t size = 1; size < challenge.size(); ++size) {
    EXPECT_EQ(guard.Look(challenge.substr(0, size), 1, false).step, Step::kWait) << size;
  }
  EXPECT_EQ(guard.Look(challenge, challenge.size(), false).step, Step::kRefuse);
  EXPECT_EQ(Look(AuthenticationMessage(3) + challenge.substr(0, 8)).size, 9u)
      << "libpq does not take its beginning along";
}

TEST(StartupGuard, FindsTheEnd) {
  const std::string end = ParameterMessage("TimeZone", "UTC") + ReadyMessage();
  EXPECT_EQ(Look(end, true).step, Step::kFeed);
  EXPECT_EQ(Look(end, true).size, end.size());
  EXPECT_EQ(Look(end + NoticeMessage().substr(0, 7), true).size, end.size());
  EXPECT_EQ(Look(Greeting()).step, Step::kFeed) << "nobody is asked for a password";
  EXPECT_EQ(Look(Greeting()).size, Greeting().size());
  EXPECT_EQ(Look(end.substr(0, end.size() - 1), true).size,
            ParameterMessage("TimeZone", "UTC").size());
  EXPECT_EQ(Look(ReadyMessage().substr(0, 5), true).step, Step::kWait);
}

TEST(StartupGuard, ErrorsAreLibpqsFromTheirBeginningOn) {
  StartupGuard guard;
  const std::string error = ErrorMessage("42704", "no");
  EXPECT_EQ(guard.Look(error.substr(0, 9), 9, true).step, Step::kWait);
  EXPECT_EQ(guard.Look(error + Greeting(), 20, true).step, Step::kLeave);
  EXPECT_EQ(guard.Look(Greeting().substr(3), 20, true).step, Step::kLeave) << "the rest of it";
  guard.BeginAgain();
  EXPECT_EQ(guard.Look(Greeting(), 20, false).step, Step::kFeed) << "libpq has tried once more";
}

TEST(StartupGuard, BoundsWhatIsRead) {
  StartupGuard guard;
  const std::string parameter = ParameterMessage("a", std::string(30000 - 100, 'x'));
  std::size_t read = 0;
  while (guard.Look(parameter, parameter.size(), true).step == Step::kFeed) {
    read += parameter.size();
    ASSERT_LE(read, StartupGuard::kMostBytes);
  }
  EXPECT_GT(read, StartupGuard::kMostBytes / 2);
  EXPECT_EQ(Look(Message('N', std::string(31000, 'x')).substr(0, 1000), true).step, Step::kRefuse);
}

TEST(StartupGuard, MoreThanItsWindowIsReadInParts) {
  std::string bytes;
  while (bytes.size() < StartupGuard::kWindow) {
    bytes += NoticeMessage();
  }
  bytes.resize(StartupGuard::kWindow);
  const StartupGuard::Verdict verdict = StartupGuard().Look(bytes, 0, true);
  EXPECT_EQ(verdict.step, Step::kFeed);
  EXPECT_EQ(verdict.size, StartupGuard::kWindow / NoticeMessage().size() * NoticeMessage().size());
}

TEST(StartupGuard, LeavesNonsenseToLibpq) {
  EXPECT_EQ(Look("").step, Step::kWait);
  EXPECT_EQ(Look("SSH-2.0-OpenSSH_9.2\r\n").step, Step::kLeave);
  EXPECT_EQ(Look("Ecould not fork new process for connection\n").step, Step::kLeave);
  EXPECT_EQ(Look(std::string("S\x7f\xff\xff\xff", 5), true).step, Step::kLeave);
  EXPECT_EQ(Look(std::string("R\0\0\0\0\0\0\0\x0b,i=9999999", 19)).step, Step::kLeave);
}

TEST(StartupGuard, TellsWhetherAServerHasAnswered) {
  const auto answered = [](const std::string& bytes) {
    StartupGuard guard;
    (void)guard.Look(bytes, bytes.size(), false);
    return guard.server_answered();
  };
  EXPECT_TRUE(answered(AuthenticationMessage(0)));
  EXPECT_TRUE(answered(AuthenticationMessage(10, kSasl).substr(0, 5)));
  EXPECT_TRUE(answered(ErrorMessage("57P03", "starting up")));
  EXPECT_FALSE(answered(""));
  EXPECT_FALSE(answered("R"));
  EXPECT_FALSE(answered("SSH-2.0-OpenSSH_9.2\r\n"));
  EXPECT_FALSE(answered("HTTP/1.1 400 Bad Request\r\n"));
  EXPECT_FALSE(answered("Ecould not fork new process for connection\n")) << "version 2";
  EXPECT_FALSE(answered(std::string(100, '\0')));
}

}  // namespace
}  // namespace polarx
