// What a datanode may ask of who connects without blocking a worker thread.
#include "engine/authentication.h"

#include <gtest/gtest.h>

namespace polarx {
namespace {

std::string Request(unsigned kind, const std::string& data) {
  std::string message = "R";
  for (const unsigned number : {static_cast<unsigned>(data.size()) + 8, kind}) {
    for (int shift = 24; shift >= 0; shift -= 8) {
      message += static_cast<char>(number >> shift & 0xff);
    }
  }
  return message + data;
}

Status Check(const std::string& bytes) { return CheckAuthentication("dn1", bytes); }

TEST(CheckAuthentication, LetsThroughWhatEndsAtOnce) {
  for (unsigned kind : {0U, 3U, 5U, 10U, 12U, 99U}) {
    EXPECT_TRUE(Check(Request(kind, "SCRAM-SHA-256")).ok()) << kind;
  }
  EXPECT_TRUE(Check(Request(11, "r=abc,s=YWJj,i=4096")).ok());
  EXPECT_TRUE(Check(Request(11, "r=abc,s=YWJj,i=1000000")).ok());
}

TEST(CheckAuthentication, RefusesKerberos) {
  for (unsigned kind : {7U, 8U, 9U}) {
    const Status status = Check(Request(kind, ""));
    EXPECT_EQ(status.sqlstate(), "28000") << kind;
    EXPECT_EQ(status.message(),
              "could not connect to datanode \"dn1\": it demands GSSAPI authentication, which the "
              "pooler does not offer");
  }
}

TEST(CheckAuthentication, RefusesEndlessIterations) {
  for (const char* number : {"1000001", "2147483647", "99999999999999999999999999"}) {
    const Status status = Check(Request(11, std::string("r=abc,s=YWJj,i=") + number));
    EXPECT_EQ(status.sqlstate(), "28000") << number;
  }
  EXPECT_TRUE(Check(Request(11, "r=abc,s=YWJj") + ",i=9999999").ok()) << "of the next message";
}

TEST(CheckAuthentication, LeavesNonsenseToLibpq) {
  EXPECT_TRUE(Check("").ok());
  EXPECT_TRUE(Check(Request(7, "").substr(0, 8)).ok());
  EXPECT_TRUE(Check("E" + Request(7, "").substr(1)).ok());
  EXPECT_TRUE(Check(Request(11, "")).ok());
  EXPECT_TRUE(Check(Request(11, ",i=")).ok());
  EXPECT_TRUE(Check(Request(11, ",i=-1")).ok());
  EXPECT_TRUE(Check(std::string("R\0\0\0\0\0\0\0\x0b,i=9999999", 19)).ok());
}

TEST(BeginsAnswer, TellsAServerFromOtherServices) {
  EXPECT_TRUE(BeginsAnswer(Request(0, "")));
  EXPECT_TRUE(BeginsAnswer(Request(10, "SCRAM-SHA-256").substr(0, 5)));
  EXPECT_TRUE(BeginsAnswer("E" + Request(0, "").substr(1)));
  EXPECT_FALSE(BeginsAnswer(""));
  EXPECT_FALSE(BeginsAnswer("R"));
  EXPECT_FALSE(BeginsAnswer("SSH-2.0-OpenSSH_9.2\r\n"));
  EXPECT_FALSE(BeginsAnswer("HTTP/1.1 400 Bad Request\r\n"));
  EXPECT_FALSE(BeginsAnswer("Ecould not fork new process for connection\n")) << "version 2";
  EXPECT_FALSE(BeginsAnswer(std::string(100, '\0')));
}

}  // namespace
}  // namespace polarx
