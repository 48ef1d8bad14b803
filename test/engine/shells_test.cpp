// Nothing of the last borrower is left in a PGconn that is lent again, and nothing it says while it
// is kept reaches a datanode.
#include "engine/shells.h"

#include <gtest/gtest.h>

#include <libpq-events.h>
#include <sys/socket.h>

#include <cstdio>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "shells_fixture.h"

namespace polarx {
namespace {

TEST_F(ShellsTest, TheSameSlotAgainCostsNoPGconnAndSaysNothing) {
  Shell* shell = Lend(&first_, Slot(1, 4711));
  PGconn* conn = shell->conn;
  const std::string identity = Identity(conn);
  EXPECT_EQ(Echo(conn, "one"), "one");
  shells_.Detach(shell, true);
  shell = Lend(&first_, Slot(1, 4711));
  EXPECT_EQ(shell->conn, conn);
  EXPECT_EQ(Identity(shell->conn), identity);
  EXPECT_EQ(shell->lent.slot, 1u);
  ExpectAsNew(shell->conn, Slot(1, 4711));
  EXPECT_EQ(Echo(shell->conn, "two"), "two");
  shells_.Detach(shell, true);
  shells_.Clear();
  EXPECT_EQ(first_.BytesUntilTheEnd(), Query("ECHO one") + Query("ECHO two"));
}

TEST_F(ShellsTest, AnotherSlotIsSpokenToAsItselfAndHearsNothingElse) {
  Shell* shell = Relend(2, [](PGconn* conn) { EXPECT_EQ(Echo(conn, "one"), "one"); });
  EXPECT_TRUE(Reused(shell));
  EXPECT_EQ(shell->lent.slot, 2u);
  ExpectAsNew(shell->conn, Slot(2, 4712, kStrange));
  EXPECT_EQ(Echo(shell->conn, "two"), "two");
  shells_.Detach(shell, true);
  shells_.Clear();
  EXPECT_EQ(first_.BytesUntilTheEnd(), Query("ECHO one"));
  EXPECT_EQ(second_.BytesUntilTheEnd(), Query("ECHO two"));
}

std::string Literal(PGconn* conn, std::string_view text) {
  char* quoted = PQescapeLiteral(conn, text.data(), text.size());
  std::string result = quoted == nullptr ? "invalid" : quoted;
  PQfreemem(quoted);
  return result;
}

std::string Escaped(PGconn* conn, std::string_view text) {
  std::string out(2 * text.size() + 1, '\0');
  out.resize(PQescapeStringConn(conn, out.data(), text.data(), text.size(), nullptr));
  return out;
}

// A quoting hole if it followed the last slot: in SJIS the second byte may be a backslash.
TEST_F(ShellsTest, QuotesAsTheSlotBeneathDemands) {
  constexpr std::string_view kOneCharacterInSjis = "\x83\x5c";
  Shell* shell = Lend(&first_, Slot(1, 4711));
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(PQclientEncoding(shell->conn), pg_char_to_encoding("UTF8"));
    EXPECT_EQ(Literal(shell->conn, kOneCharacterInSjis), "invalid");
    EXPECT_EQ(Escaped(shell->conn, "a\\'"), "a\\''");
    shells_.Detach(shell, true);
    shell = Lend(&second_, Slot(2, 4712, kStrange));
    EXPECT_EQ(PQclientEncoding(shell->conn), pg_char_to_encoding("SJIS"));
    EXPECT_EQ(Literal(shell->conn, kOneCharacterInSjis), "'\x83\x5c'");
    EXPECT_EQ(Escaped(shell->conn, "a\\'"), "a\\\\''");
    shells_.Detach(shell, true);
    shell = Lend(&first_, Slot(1, 4711));
  }
  shells_.Detach(shell, true);
  EXPECT_EQ(shells_.descriptors(), 3u) << "it was one PGconn all the time";
}

TEST_F(ShellsTest, ValuesThatTheBorrowerChangedAreTheSlotsAgain) {
  for (const std::uint64_t next : {1, 2}) {
    Shell* shell = Relend(next, [](PGconn* conn) {
      Run(conn, "SET client_encoding = LATIN1");
      Run(conn, "SET standard_conforming_strings = off");
      Run(conn, "SET server_version = 9.1.2");
      Run(conn, "SET TimeZone = UTC");
    });
    EXPECT_TRUE(Reused(shell)) << next;
    ExpectAsNew(shell->conn, shell->lent);
    EXPECT_EQ(PQserverVersion(shell->conn), 150007);
    EXPECT_EQ(PQclientEncoding(shell->conn), pg_char_to_encoding(next == 1 ? "UTF8" : "SJIS"));
    shells_.Detach(shell, false);
  }
}

TEST_F(ShellsTest, TheSameSlotMayReportOtherValuesNow) {
  Shell* shell = Relend(1, [](PGconn*) {});
  shells_.Detach(shell, true);
  shell = Lend(&first_, Slot(1, 4711, kStrange));
  EXPECT_TRUE(Reused(shell));
  ExpectAsNew(shell->conn, Slot(1, 4711, kStrange));
  shells_.Detach(shell, true);
}

TEST_F(ShellsTest, AnotherSlotMayHaveTheSameProcessId) {
  Shell* shell = Relend(1, [](PGconn*) {});
  shells_.Detach(shell, true);
  shell = Lend(&second_, Slot(2, 4711, kStrange));
  EXPECT_TRUE(Reused(shell));
  ExpectAsNew(shell->conn, Slot(2, 4711, kStrange));
  shells_.Detach(shell, true);
}

TEST_F(ShellsTest, LongValuesGoIntoAKeptOneToo) {
  protocol::Parameters values = kPlain->values;
  values.emplace_back("search_path", std::string(25'000, 's'));
  Shell* shell = Relend(1, [](PGconn*) {});
  shells_.Detach(shell, true);
  shell = Lend(&second_, Slot(2, 4712, Set(3, values)));
  EXPECT_TRUE(Reused(shell));
  ExpectAsNew(shell->conn, shell->lent);
  shells_.Detach(shell, true);
}

// What one cannot be told must not stand in the way of those that are kept beside it.
TEST_F(ShellsTest, ValuesTooLongForAKeptOneSpoilNoOther) {
  ScriptedDatanode third;
  Shell* small = Lend(&first_, Slot(1, 4711));
  Shell* large = Lend(&second_, Slot(2, 4712));
  const std::string identity = Identity(small->conn);
  shells_.Detach(small, true);
  shells_.Detach(large, true);
  protocol::Parameters values = kPlain->values;
  values.emplace_back("search_path", std::string(2'000'000, 's'));
  EXPECT_FALSE(shells_.Adopt(second_.Lend(), Slot(2, 4712, Set(3, values)), kLimit).ok());
  for (std::uint64_t slot = 3; slot < 6; ++slot) {
    Shell* shell = Lend(&third, Slot(slot, static_cast<std::int32_t>(slot)));
    const std::string made = Identity(shell->conn);
    shells_.Detach(shell, true);
    shell = Lend(&third, Slot(slot + 10, 100));
    EXPECT_EQ(Identity(shell->conn), made);
    ExpectAsNew(shell->conn, shell->lent);
    shells_.Detach(shell, true);
  }
}

TEST_F(ShellsTest, WhatLibpqCannotForgetTakesANewPGconn) {
  protocol::Parameters fewer = kPlain->values;
  fewer.pop_back();
  Shell* shell = Relend(1, [](PGconn*) {});
  shells_.Detach(shell, true);
  shell = Lend(&second_, Slot(2, 4712, Set(3, fewer)));
  EXPECT_FALSE(Reused(shell));
  EXPECT_EQ(PQparameterStatus(shell->conn, "application_name"), nullptr);
  ExpectAsNew(shell->conn, shell->lent);
  shells_.Detach(shell, false);
}

TEST_F(ShellsTest, AParameterThatTheSlotDidNotReportBeforeTakesANewPGconn) {
  Shell* shell = Relend(1, [](PGconn* conn) { Run(conn, "SET search_path = mine"); });
  EXPECT_FALSE(Reused(shell));
  EXPECT_EQ(PQparameterStatus(shell->conn, "search_path"), nullptr);
  shells_.Detach(shell, false);
}

TEST_F(ShellsTest, AnotherPoolTakesANewPGconnAndLeavesTheKeptOne) {
  Shell* shell = Relend(1, [](PGconn*) {});
  shells_.Detach(shell, true);
  Lent other = Slot(2, 4712);
  other.pool = 8;
  shell = Lend(&second_, other);
  EXPECT_FALSE(Reused(shell));
  Shell* kept = Lend(&first_, Slot(1, 4711));
  EXPECT_TRUE(Reused(kept));
  shells_.Detach(shell, false);
  shells_.Detach(kept, false);
}

TEST_F(ShellsTest, AnotherAttachmentTakesANewPGconnAndEndsTheKeptOnes) {
  Shell* shell = Relend(1, [](PGconn*) {});
  shells_.Detach(shell, true);
  EXPECT_EQ(shells_.descriptors(), 3u);
  Lent other = Slot(1, 4711);
  other.attachment = 2;
  shell = Lend(&first_, other);
  EXPECT_FALSE(Reused(shell)) << "its numbers mean something else";
  EXPECT_EQ(shells_.descriptors(), 2u);
  shells_.Detach(shell, false);
}

TEST_F(ShellsTest, TheOneThatServedTheSlotIsTakenFirst) {
  Shell* one = Lend(&first_, Slot(1, 4711));
  Shell* two = Lend(&second_, Slot(2, 4712));
  const std::string of_one = Identity(one->conn);
  const std::string of_two = Identity(two->conn);
  shells_.Detach(one, true);
  shells_.Detach(two, true);
  one = Lend(&first_, Slot(1, 4711));
  two = Lend(&second_, Slot(2, 4712));
  EXPECT_EQ(Identity(one->conn), of_one);
  EXPECT_EQ(Identity(two->conn), of_two);
  shells_.Detach(two, true);
  shells_.Detach(one, true);
  one = Lend(&first_, Slot(3, 4713));
  EXPECT_EQ(Identity(one->conn), of_one) << "none served it: the last one used";
  shells_.Detach(one, true);
}

// --- what borrowers leave -----------------------------------------------------------------------

int calls_of_the_last = 0;
void Receive(void*, const PGresult*) { ++calls_of_the_last; }
void Process(void*, const char*) { ++calls_of_the_last; }
int OnEvent(PGEventId event, void*, void*) {
  calls_of_the_last += event == PGEVT_CONNDESTROY ? 0 : 1;
  return 1;
}

std::string Notice() {
  std::string bytes;
  AppendMessage('N', std::string("SNOTICE\0C00000\0Mhear\0\0", 22), &bytes);
  return bytes;
}

TEST_F(ShellsTest, SlotsThatOftenTakeTurnsGetOneEach) {
  std::set<std::string> identities;
  int same = 0;
  for (int turn = 0; turn < 200; ++turn) {
    const bool odd = turn % 2 == 1;
    Shell* shell =
        odd ? Lend(&second_, Slot(2, 4712, kStrange)) : Lend(&first_, Slot(1, 4711, kPlain));
    ASSERT_NE(shell, nullptr);
    identities.insert(Identity(shell->conn));
    EXPECT_EQ(PQbackendPID(shell->conn), odd ? 4712 : 4711);
    EXPECT_STREQ(PQparameterStatus(shell->conn, "client_encoding"), odd ? "SJIS" : "UTF8");
    same += identities.size() == 2 ? 1 : 0;
    shells_.Detach(shell, true);
  }
  EXPECT_EQ(identities.size(), 2u);
  EXPECT_GT(same, 100);
}

TEST_F(ShellsTest, NotMoreThanAFewAreMadeThatWay) {
  std::set<std::string> identities;
  for (std::uint64_t turn = 0; turn < 1500; ++turn) {
    Shell* shell = Lend(&first_, Slot(turn % 50 + 1, 4711));
    ASSERT_NE(shell, nullptr);
    identities.insert(Identity(shell->conn));
    shells_.Detach(shell, true);
  }
  EXPECT_EQ(identities.size(), 8u);
}

TEST_F(ShellsTest, SettingsOfTheLastBorrowerAreTakenBack) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> trace(std::tmpfile(), std::fclose);
  PQnoticeReceiver receiver = nullptr;
  PQnoticeProcessor processor = nullptr;
  for (const std::uint64_t next : {1, 2}) {
    Shell* shell = Relend(next, [&](PGconn* conn) {
      receiver = PQsetNoticeReceiver(conn, Receive, this);
      processor = PQsetNoticeProcessor(conn, Process, this);
      PQsetErrorVerbosity(conn, PQERRORS_VERBOSE);
      PQsetErrorContextVisibility(conn, PQSHOW_CONTEXT_ALWAYS);
      PQsetnonblocking(conn, 1);
      PQtrace(conn, trace.get());
    });
    EXPECT_TRUE(Reused(shell));
    ExpectAsNew(shell->conn, shell->lent);
    std::fflush(trace.get());
    const long traced = std::ftell(trace.get());
    EXPECT_EQ(PQsetNoticeReceiver(shell->conn, nullptr, nullptr), receiver);
    EXPECT_EQ(PQsetNoticeProcessor(shell->conn, nullptr, nullptr), processor);
    EXPECT_EQ(PQsetErrorVerbosity(shell->conn, PQERRORS_DEFAULT), PQERRORS_DEFAULT);
    EXPECT_EQ(PQsetErrorContextVisibility(shell->conn, PQSHOW_CONTEXT_ERRORS),
              PQSHOW_CONTEXT_ERRORS);
    calls_of_the_last = 0;
    testing::internal::CaptureStderr();  // the default processor's place
    (next == 1 ? first_ : second_).Say(Notice());
    EXPECT_EQ(Echo(shell->conn, "x"), "x");
    EXPECT_NE(testing::internal::GetCapturedStderr().find("hear"), std::string::npos);
    EXPECT_EQ(calls_of_the_last, 0);
    std::fflush(trace.get());
    EXPECT_EQ(std::ftell(trace.get()), traced);
    shells_.Detach(shell, false);
  }
}

TEST_F(ShellsTest, ItsErrorMessageIsGone) {
  for (const std::uint64_t next : {1, 2}) {
    Shell* shell = Relend(next, [](PGconn* conn) {
      EXPECT_EQ(Run(conn, "FAIL 42P01 no such table"), PGRES_FATAL_ERROR);
    });
    EXPECT_TRUE(Reused(shell));
    ExpectAsNew(shell->conn, shell->lent);
    shells_.Detach(shell, false);
  }
}

TEST_F(ShellsTest, ItsTransactionIsGone) {
  for (const char* last : {"ECHO x", "FAIL 22012 division by zero"}) {
    Shell* shell = Relend(2, [last](PGconn* conn) {
      Run(conn, "BEGIN");
      Run(conn, last);
      EXPECT_NE(PQtransactionStatus(conn), PQTRANS_IDLE);
    });
    EXPECT_TRUE(Reused(shell)) << last;
    ExpectAsNew(shell->conn, shell->lent);
    shells_.Detach(shell, false);
    ASSERT_EQ(shells_.descriptors(), 2u);
    Run((shell = Lend(&first_, Slot(1, 4711)))->conn, "ROLLBACK");
    shells_.Detach(shell, false);
  }
}

TEST_F(ShellsTest, NotificationsThatItDidNotFetchAreGone) {
  for (const std::uint64_t next : {1, 2}) {
    Shell* shell = Relend(next, [this](PGconn* conn) {
      first_.Say(Notification("secret"));
      ASSERT_EQ(PQconsumeInput(conn), 1);
    });
    EXPECT_TRUE(Reused(shell));
    EXPECT_EQ(PQnotifies(shell->conn), nullptr) << next;
    shells_.Detach(shell, false);
  }
}

TEST_F(ShellsTest, WithAnEventProcedureItIsEndedAtOnce) {
  bool destroyed = false;
  const auto on_end = [](PGEventId event, void*, void* told) {
    *static_cast<bool*>(told) |= event == PGEVT_CONNDESTROY;
    return 1;
  };
  for (const std::uint64_t next : {1, 2}) {
    destroyed = false;
    Shell* shell = Relend(next, [&](PGconn* conn) {
      ASSERT_NE(PQregisterEventProc(conn, OnEvent, "last", nullptr), 0);
      ASSERT_NE(PQregisterEventProc(conn, on_end, "end", &destroyed), 0);
    });
    EXPECT_TRUE(destroyed);
    EXPECT_FALSE(Reused(shell));
    calls_of_the_last = 0;
    EXPECT_EQ(Echo(shell->conn, "x"), "x");
    EXPECT_EQ(calls_of_the_last, 0);
    shells_.Detach(shell, false);
  }
}

TEST_F(ShellsTest, AMessageThatItDidNotFlushIsItsOwn) {
  Shell* shell = Relend(1, [](PGconn* conn) { ASSERT_EQ(PQsendFlushRequest(conn), 1); });
  shells_.Detach(shell, true);
  std::string flush;
  AppendMessage('H', "", &flush);
  shell = Lend(&second_, Slot(2, 4712));
  EXPECT_EQ(Echo(shell->conn, "x"), "x");
  shells_.Detach(shell, true);
  shells_.Clear();
  EXPECT_EQ(first_.BytesUntilTheEnd(), flush) << "sent while it was lent";
  EXPECT_EQ(second_.BytesUntilTheEnd(), Query("ECHO x"));
}

// libpq merely pretends to send after a write failed.
TEST_F(ShellsTest, OneThatFailedToSendIsNotLentToAnotherSlot) {
  Shell* shell = Relend(2, [this](PGconn* conn) {
    first_.StopListening();
    ASSERT_EQ(PQsendFlushRequest(conn), 1);
    (void)PQflush(conn);
  });
  EXPECT_FALSE(Reused(shell));
  EXPECT_EQ(Echo(shell->conn, "x"), "x");
  shells_.Detach(shell, false);
}

// `fcntl` reaches all copies of a descriptor; libpq would wait in a read.
TEST_F(ShellsTest, ADescriptorThatBlocksDoesSoNoLonger) {
  for (const std::uint64_t next : {1, 2}) {
    Shell* shell =
        Relend(next, [](PGconn* conn) { ASSERT_EQ(::fcntl(PQsocket(conn), F_SETFL, 0), 0); });
    EXPECT_TRUE(Reused(shell));
    ExpectAsNew(shell->conn, shell->lent);
    shells_.Detach(shell, false);
  }
}

}  // namespace
}  // namespace polarx
