// PGconns that are in no state to be kept are ended in silence, and no more are kept than should.
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "engine/adopt.h"
#include "shells_fixture.h"

namespace polarx {
namespace {

std::string Message(char type, std::string_view body) {
  std::string bytes;
  AppendMessage(type, body, &bytes);
  return bytes;
}

// The borrower claims that it may be kept.
TEST_F(ShellsTest, InNoStateToBeKeptItIsEnded) {
  using Borrow = std::function<void(PGconn*, ScriptedDatanode*)>;
  const auto send = [](PGconn* conn) { ASSERT_EQ(PQsendQuery(conn, "SLEEP"), 1); };
  const auto copy = [&](char type, ExecStatusType expected) -> Borrow {
    return [=](PGconn* conn, ScriptedDatanode* datanode) {
      send(conn);
      datanode->Say(Message(type, std::string(3, '\0')));
      PGresult* result = PQgetResult(conn);
      EXPECT_EQ(PQresultStatus(result), expected);
      PQclear(result);
    };
  };
  const std::vector<std::pair<const char*, Borrow>> cases = {
      {"busy", [&](PGconn* conn, ScriptedDatanode*) { send(conn); }},
      {"a result not fetched",
       [](PGconn* conn, ScriptedDatanode*) {
         ASSERT_EQ(PQsendQuery(conn, "ECHO x"), 1);
         while (PQisBusy(conn) != 0) {
           ASSERT_EQ(PQconsumeInput(conn), 1);
           ::usleep(100);
         }
       }},
      {"copy in", copy('G', PGRES_COPY_IN)},
      {"copy out", copy('H', PGRES_COPY_OUT)},
      {"copy both", copy('W', PGRES_COPY_BOTH)},
      {"pipeline",
       [](PGconn* conn, ScriptedDatanode*) { ASSERT_EQ(PQenterPipelineMode(conn), 1); }},
      {"aborted pipeline",
       [](PGconn* conn, ScriptedDatanode*) {
         ASSERT_EQ(PQenterPipelineMode(conn), 1);
         ASSERT_EQ(
             PQsendQueryParams(conn, "FAIL 22012 x", 0, nullptr, nullptr, nullptr, nullptr, 0), 1);
         ASSERT_EQ(PQsendFlushRequest(conn), 1);
         ASSERT_EQ(PQflush(conn), 0);
         PQclear(PQgetResult(conn));
         EXPECT_EQ(PQpipelineStatus(conn), PQ_PIPELINE_ABORTED);
       }},
      {"broken",
       [](PGconn* conn, ScriptedDatanode* datanode) {
         datanode->HangUp();
         EXPECT_EQ(Run(conn, "ECHO x"), PGRES_FATAL_ERROR);
         EXPECT_EQ(PQstatus(conn), CONNECTION_BAD);
       }},
      {"out of step",
       [](PGconn* conn, ScriptedDatanode* datanode) {
         datanode->Say(std::string("\0\x7f\x7f\x7f\x7f", 5));
         ASSERT_EQ(PQconsumeInput(conn), 1);
       }},
  };
  for (const auto& [name, borrow] : cases) {
    SCOPED_TRACE(name);
    ScriptedDatanode datanode;
    const std::size_t before = OpenDescriptors();
    Shell* shell = Lend(&datanode, Slot(1, 4711));
    borrow(shell->conn, &datanode);
    shells_.Detach(shell, true);
    EXPECT_EQ(shells_.descriptors(), 0u);
    EXPECT_LE(OpenDescriptors(), before + 1) << "the placeholder, if it was the first";
    EXPECT_EQ(datanode.BytesUntilTheEnd().find("X\0\0\0\4"), std::string::npos);
  }
}

TEST_F(ShellsTest, ThatWhichIsNotToBeKeptIsEndedInSilence) {
  Shell* shell = Lend(&first_, Slot(1, 4711));
  shells_.Detach(shell, false);
  EXPECT_EQ(shells_.descriptors(), 0u);
  EXPECT_EQ(first_.BytesUntilTheEnd(), "");
}

// Cut at every byte of its first ones, and now and then further on.
TEST_F(ShellsTest, PartOfAMessageIsNotTakenIntoAnotherSlot) {
  const std::vector<std::string> messages = {
      Notification("K"), Notification(std::string(14, 'x')), Notification(std::string(300, 'x')),
      Message('S', std::string("TimeZone\0UTC\0", 13)),
      Message('N', std::string("SNOTICE\0C00000\0Mhear\0\0", 22))};
  for (const std::string& message : messages) {
    for (std::size_t size = 1; size < message.size(); size += size < 24 ? 1 : 37) {
      for (const std::int32_t pid : {4711, 4712}) {
        testing::internal::CaptureStderr();  // where libpq prints notices
        SCOPED_TRACE(message.substr(0, 1) + " " + std::to_string(size) + " of " +
                     std::to_string(message.size()));
        Shells shells;
        ScriptedDatanode last;
        Result<Shell*> shell = shells.Adopt(last.Lend(), Slot(1, 4711), kLimit);
        ASSERT_TRUE(shell.ok());
        const std::string identity = Identity(shell.value()->conn);
        last.Say(std::string_view(message).substr(0, size));
        ASSERT_EQ(PQconsumeInput(shell.value()->conn), 1);
        shells.Detach(shell.value(), true);
        const Lent next = Slot(2, pid, pid == 4711 ? kPlain : kStrange);
        shell = shells.Adopt(second_.Lend(), next, kLimit);
        ASSERT_TRUE(shell.ok());
        EXPECT_NE(Identity(shell.value()->conn), identity);
        ExpectAsNew(shell.value()->conn, next);
        ASSERT_EQ(Echo(shell.value()->conn, "x"), "x");
        shells.Detach(shell.value(), false);
        EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
      }
    }
  }
}

// One that is found out must not hand its rest on to those that are kept beside it.
TEST_F(ShellsTest, PartOfAMessageSpoilsNoOther) {
  ScriptedDatanode third;
  Shell* good = Lend(&first_, Slot(1, 4711));
  Shell* bad = Lend(&second_, Slot(2, 4712));
  const std::string identity = Identity(good->conn);
  second_.Say(Notification("rest").substr(0, 9));
  ASSERT_EQ(PQconsumeInput(bad->conn), 1);
  shells_.Detach(good, true);
  shells_.Detach(bad, true);
  Shell* shell = Lend(&third, Slot(3, 4713, kStrange));
  EXPECT_EQ(Identity(shell->conn), identity) << "the bad one came first and was ended";
  ExpectAsNew(shell->conn, shell->lent);
  EXPECT_EQ(shells_.descriptors(), 2u);
  shells_.Detach(shell, true);
}

// Its rest comes over the same descriptor, if anywhere: the borrower who reads on is in step.
TEST_F(ShellsTest, PartOfAMessageOfTheSameSlotIsCompletedByThatSlot) {
  const std::string message = Notification("whole");
  Shell* shell = Relend(1, [&](PGconn* conn) {
    first_.Say(std::string_view(message).substr(0, 9));
    ASSERT_EQ(PQconsumeInput(conn), 1);
  });
  first_.Say(std::string_view(message).substr(9));
  EXPECT_EQ(Echo(shell->conn, "x"), "x");
  PGnotify* notify = PQnotifies(shell->conn);
  ASSERT_NE(notify, nullptr);
  EXPECT_STREQ(notify->extra, "whole");
  PQfreemem(notify);
  shells_.Detach(shell, false);
}

TEST_F(ShellsTest, WhatAKeptOneSaysReachesNobody) {
  Shell* shell = Lend(&first_, Slot(1, 4711));
  PGconn* conn = shell->conn;
  shells_.Detach(shell, true);
  ASSERT_EQ(shells_.descriptors(), 3u);
  EXPECT_EQ(PQsendQuery(conn, "ECHO lost"), 1);
  shells_.Clear();
  EXPECT_EQ(first_.BytesUntilTheEnd(), "");
}

TEST_F(ShellsTest, CountsItsDescriptors) {
  EXPECT_EQ(shells_.descriptors(), 0u);
  Shell* one = Lend(&first_, Slot(1, 4711));
  Shell* two = Lend(&second_, Slot(2, 4712));
  EXPECT_EQ(shells_.descriptors(), 0u) << "those that are lent are counted with the lease";
  const std::size_t lent = OpenDescriptors();
  shells_.Detach(one, true);
  EXPECT_EQ(shells_.descriptors(), 3u);
  EXPECT_EQ(OpenDescriptors(), lent + 2);
  shells_.Detach(two, true);
  EXPECT_EQ(shells_.descriptors(), 4u);
  EXPECT_EQ(OpenDescriptors(), lent + 2);
  one = Lend(&first_, Slot(1, 4711));
  EXPECT_EQ(shells_.descriptors(), 3u);
  shells_.Detach(one, false);
  EXPECT_EQ(OpenDescriptors(), lent + 1);
  shells_.Clear();
  EXPECT_EQ(shells_.descriptors(), 0u);
  EXPECT_EQ(OpenDescriptors(), lent - 2) << "the two that were lent are gone";
  shells_.Clear();
  one = Lend(&first_, Slot(1, 4711));
  EXPECT_EQ(Echo(one->conn, "x"), "x");
  shells_.Detach(one, true);
  EXPECT_EQ(shells_.descriptors(), 3u);
}

TEST_F(ShellsTest, TheEndOfAllLeavesNoDescriptor) {
  shells_.Detach(Lend(&first_, Slot(1, 4711)), false);  // makes the placeholder
  const std::size_t before = OpenDescriptors();
  {
    Shells others;
    Result<Shell*> shell = others.Adopt(first_.Lend(), Slot(1, 4711), kLimit);
    ASSERT_TRUE(shell.ok());
    others.Detach(shell.value(), true);
    EXPECT_EQ(OpenDescriptors(), before + 3);
  }
  EXPECT_EQ(OpenDescriptors(), before);
}

TEST_F(ShellsTest, OfMoreThanSixtyFourTheOldestIsEnded) {
  constexpr std::uint64_t kMost = 64;
  std::vector<Shell*> lent;
  std::vector<std::string> identities;
  for (std::uint64_t slot = 1; slot <= kMost + 2; ++slot) {
    lent.push_back(Lend(&first_, Slot(slot, static_cast<std::int32_t>(slot))));
    identities.push_back(Identity(lent.back()->conn));
  }
  const std::size_t before = OpenDescriptors();
  for (Shell* shell : lent) {
    shells_.Detach(shell, true);
  }
  EXPECT_EQ(shells_.descriptors(), kMost + 2);
  EXPECT_EQ(OpenDescriptors(), before);  // two ended, two for the pair
  for (std::uint64_t slot = kMost + 2; slot > 2; --slot) {
    Shell* shell = Lend(&first_, Slot(slot, static_cast<std::int32_t>(slot)));
    ASSERT_EQ(Identity(shell->conn), identities[slot - 1]) << slot;
    shells_.Detach(shell, false);
  }
  EXPECT_EQ(shells_.descriptors(), 2u) << "slots 1 and 2 had the oldest";
  EXPECT_EQ(first_.BytesUntilTheEnd(), "");
}

TEST_F(ShellsTest, ADescriptorThatIsNoneIsAnError) {
  for (const bool kept : {false, true}) {
    if (kept) {
      shells_.Detach(Lend(&first_, Slot(1, 4711)), true);
    }
    const Result<Shell*> shell = shells_.Adopt(UniqueFd(), Slot(1, 4711), kLimit);
    ASSERT_FALSE(shell.ok());
    EXPECT_EQ(shell.status().sqlstate(), "XX000");
  }
}

}  // namespace
}  // namespace polarx
