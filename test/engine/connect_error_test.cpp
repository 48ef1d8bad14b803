// What is made of libpq's words about a failed connect.
#include "engine/connect_error.h"

#include <gtest/gtest.h>

namespace polarx {
namespace {

struct Case {
  const char* what;
  const char* text;
  const char* sqlstate;
  const char* message;
};

TEST(ConnectErrorStatus, KeepsTheReasonAndFindsTheSqlstate) {
  const Case cases[] = {
      {"refused by the kernel",
       "connection to server at \"127.0.0.1\", port 5 failed: Connection refused\n"
       "\tIs the server running on that host and accepting TCP/IP connections?\n",
       "08001",
       "could not connect to datanode \"dn1\": connection to server at \"127.0.0.1\", port 5 "
       "failed: "
       "Connection refused"},
      {"refused by the server",
       "connection to server at \"127.0.0.1\", port 5 failed: FATAL:  28P01: password "
       "authentication failed for user \"a\"\nLOCATION:  auth_failed, auth.c:338\n",
       "28P01",
       "could not connect to datanode \"dn1\": connection to server at \"127.0.0.1\", port 5 "
       "failed: "
       "FATAL:  password authentication failed for user \"a\""},
      {"a password that the mapping does not have",
       "connection to server at \"127.0.0.1\", port 5 failed: fe_sendauth: no password supplied\n",
       "28P01",
       "could not connect to datanode \"dn1\": connection to server at \"127.0.0.1\", port 5 "
       "failed: "
       "fe_sendauth: no password supplied"},
      {"in another language",
       "Verbindung fehlgeschlagen: FATAL:  3D000: Datenbank »x« existiert nicht\n"
       "ORT:  InitPostgres, postinit.c:883\n",
       "3D000",
       "could not connect to datanode \"dn1\": Verbindung fehlgeschlagen: FATAL:  Datenbank »x« "
       "existiert nicht"},
      {"several addresses", "first failed: refused\nsecond failed: refused\n", "08001",
       "could not connect to datanode \"dn1\": first failed: refused; second failed: refused"},
      {"twice, because libpq has tried again without application_name",
       "connection to server at \"127.0.0.1\", port 5 failed: FATAL:  42704: unrecognized "
       "configuration parameter \"x\"\nLOCATION:  find_option, guc.c:5619\n"
       "connection to server at \"127.0.0.1\", port 5 failed: FATAL:  42704: unrecognized "
       "configuration parameter \"x\"\nLOCATION:  find_option, guc.c:5619\n",
       "42704",
       "could not connect to datanode \"dn1\": connection to server at \"127.0.0.1\", port 5 "
       "failed: FATAL:  unrecognized configuration parameter \"x\""},
      {"no descriptor of ours", "could not create socket: Too many open files\n", "53000",
       "could not connect to datanode \"dn1\": could not create socket: Too many open files"},
      {"none of the machine's",
       "connection to server at \"::1\", port 5 failed: Connection refused\n"
       "could not create socket: Too many open files in system\n",
       "53000",
       "could not connect to datanode \"dn1\": connection to server at \"::1\", port 5 failed: "
       "Connection refused; could not create socket: Too many open files in system"},
      {"none of the datanode's",
       "connection to server at \"::1\", port 5 failed: FATAL:  58030: could not open file "
       "\"x\": Too many open files\n",
       "58030",
       "could not connect to datanode \"dn1\": connection to server at \"::1\", port 5 failed: "
       "FATAL:  could not open file \"x\": Too many open files"},
      {"nothing", "", "08001", "could not connect to datanode \"dn1\": "},
      {"a colon is no SQLSTATE", "error:  abcde: x", "08001",
       "could not connect to datanode \"dn1\": error:  abcde: x"},
  };
  for (const Case& c : cases) {
    const Status status = ConnectErrorStatus("dn1", c.text);
    EXPECT_EQ(status.sqlstate(), c.sqlstate) << c.what;
    EXPECT_EQ(status.message(), c.message) << c.what;
  }
}

TEST(IsPoolLimit, TellsTheLimitOfARoleOrDatabaseFromTheDatanodes) {
  EXPECT_TRUE(
      IsPoolLimit("FATAL:  53300: too many connections for role \"a\"\n"
                  "LOCATION:  InitializeSessionUserId, miscinit.c:800\n"));
  EXPECT_TRUE(
      IsPoolLimit("FATAL:  53300: too many connections for database \"d\"\n"
                  "LOCATION:  CheckMyDatabase, postinit.c:380\n"));
  EXPECT_FALSE(
      IsPoolLimit("FATAL:  53300: sorry, too many clients already\n"
                  "LOCATION:  ProcessStartupPacket, postmaster.c:2400\n"));
  EXPECT_FALSE(IsPoolLimit("FATAL:  28P01: no\nLOCATION:  InitializeSessionUserId, a.c:1\n"));
}

}  // namespace
}  // namespace polarx
