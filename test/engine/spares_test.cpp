// A PGconn made in advance is used instead of making one, and nothing shows which of the two it
// was.
#include <gtest/gtest.h>

#include <libpq-fe.h>

#include <set>
#include <string>
#include <vector>

#include "shells_fixture.h"

namespace polarx {
namespace {

class SparesTest : public ShellsTest {
 protected:
  // Their descriptors. An adoption of before has opened what all adoptions share.
  std::set<int> MakeSpares(int count) {
    {
      ScriptedDatanode datanode;
      shells_.Detach(Lend(&datanode, Slot(99, 1)), false);
    }
    const std::set<int> before = Descriptors();
    Shells::MakeSpares(count, kLimit);
    std::set<int> made;
    for (const int fd : Descriptors()) {
      if (before.count(fd) == 0) {
        made.insert(fd);
      }
    }
    return made;
  }
};

TEST_F(SparesTest, TheFirstAdoptionsUseThem) {
  const std::set<int> spares = MakeSpares(2);
  ASSERT_EQ(spares.size(), 2u);
  ScriptedDatanode third;
  std::vector<Shell*> lent = {Lend(&first_, Slot(1, 4711, kStrange)), Lend(&second_, Slot(2, 4712)),
                              Lend(&third, Slot(3, 4713))};
  const std::set<int> used = {PQsocket(lent[0]->conn), PQsocket(lent[1]->conn)};
  EXPECT_EQ(used, spares);
  EXPECT_EQ(spares.count(PQsocket(lent[2]->conn)), 0u) << "none is left";
  ExpectAsNew(lent[0]->conn, Slot(1, 4711, kStrange));
  ExpectAsNew(lent[1]->conn, Slot(2, 4712));
  EXPECT_EQ(PQclientEncoding(lent[0]->conn), pg_char_to_encoding("SJIS"));
  EXPECT_EQ(PQclientEncoding(lent[1]->conn), pg_char_to_encoding("UTF8"));
  EXPECT_EQ(PQserverVersion(lent[0]->conn), 150007);
  for (Shell* shell : lent) {
    EXPECT_EQ(Echo(shell->conn, "hello"), "hello");
    shells_.Detach(shell, true);
  }
  shells_.Clear();
  EXPECT_EQ(first_.BytesUntilTheEnd(), Query("ECHO hello"));
  EXPECT_EQ(second_.BytesUntilTheEnd(), Query("ECHO hello"));
}

TEST_F(SparesTest, OneThatWasKeptComesFirst) {
  Shell* shell = Lend(&first_, Slot(1, 4711));
  PGconn* conn = shell->conn;
  shells_.Detach(shell, true);
  Shells::MakeSpares(1, kLimit);
  shell = Lend(&first_, Slot(1, 4711));
  EXPECT_EQ(shell->conn, conn);
  shells_.Detach(shell, true);
}

TEST_F(SparesTest, ItIsKeptLikeAnyOtherAfterwards) {
  const std::set<int> spares = MakeSpares(1);
  Shell* shell = Lend(&first_, Slot(1, 4711));
  EXPECT_EQ(Echo(shell->conn, "one"), "one");
  PGconn* conn = shell->conn;
  shells_.Detach(shell, true);
  shell = Lend(&first_, Slot(1, 4711));
  EXPECT_EQ(shell->conn, conn);
  EXPECT_EQ(spares.count(PQsocket(shell->conn)), 1u);
  EXPECT_EQ(Echo(shell->conn, "two"), "two");
  shells_.Detach(shell, false);
}

}  // namespace
}  // namespace polarx
