// Kept PGconns between scripted datanodes: what tests of them share.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "descriptors.h"
#include "engine/server_messages.h"
#include "engine/shells.h"
#include "scripted_datanode.h"

namespace polarx {

// In the order of kReportedParameters, as the pooler makes them.
inline protocol::Parameters Values(const char* encoding, const char* conforming,
                                   const char* style) {
  return {{"server_version", "15.7"},
          {"client_encoding", encoding},
          {"standard_conforming_strings", conforming},
          {"DateStyle", style},
          {"TimeZone", "Europe/Berlin"},
          {"application_name", ""}};
}

inline SharedParameters Set(std::uint64_t id, protocol::Parameters values) {
  return std::make_shared<const ParameterSet>(ParameterSet{id, std::move(values)});
}

inline const SharedParameters kPlain = Set(1, Values("UTF8", "on", "ISO, MDY"));
inline const SharedParameters kStrange = Set(2, Values("SJIS", "off", "German, DMY"));

class ShellsTest : public testing::Test {
 protected:
  static constexpr Duration kLimit = std::chrono::seconds(10);

  static Lent Slot(std::uint64_t slot, std::int32_t pid, SharedParameters parameters = kPlain) {
    return {.attachment = 1,
            .slot = slot,
            .pool = 7,
            .backend_pid = pid,
            .parameters = std::move(parameters)};
  }

  Shell* Lend(ScriptedDatanode* datanode, Lent lent) {
    Result<Shell*> shell = shells_.Adopt(datanode->Lend(), std::move(lent), kLimit);
    EXPECT_TRUE(shell.ok()) << shell.status().message();
    return shell.ok() ? shell.value() : nullptr;
  }
  // What becomes of a shell that slot 1 lent and `borrow` has left, as slot `next` lends again.
  template <typename Borrow>
  Shell* Relend(std::uint64_t next, Borrow borrow) {
    Shell* shell = Lend(&first_, Slot(1, 4711));
    kept_identity_ = Identity(shell->conn);
    borrow(shell->conn);
    shells_.Detach(shell, true);
    return next == 1 ? Lend(&first_, Slot(1, 4711)) : Lend(&second_, Slot(next, 4712, kStrange));
  }
  bool Reused(const Shell* shell) const { return Identity(shell->conn) == kept_identity_; }

  // Each PGconn's startup had a name of its own.
  static std::string Identity(const PGconn* conn) { return PQhost(conn); }

  static ExecStatusType Run(PGconn* conn, const char* sql) {
    PGresult* result = PQexec(conn, sql);
    const ExecStatusType status = PQresultStatus(result);
    PQclear(result);
    return status;
  }
  static std::string Echo(PGconn* conn, const std::string& text) {
    PGresult* result = PQexec(conn, ("ECHO " + text).c_str());
    std::string answer = PQntuples(result) == 1 ? PQgetvalue(result, 0, 0) : PQerrorMessage(conn);
    PQclear(result);
    return answer;
  }

  // It stands where a new PGconn that `lent` describes would.
  static void ExpectAsNew(PGconn* conn, const Lent& lent) {
    EXPECT_EQ(PQstatus(conn), CONNECTION_OK);
    EXPECT_EQ(PQtransactionStatus(conn), PQTRANS_IDLE);
    EXPECT_EQ(PQpipelineStatus(conn), PQ_PIPELINE_OFF);
    EXPECT_EQ(PQisnonblocking(conn), 0);
    EXPECT_EQ(PQisBusy(conn), 0);
    EXPECT_STREQ(PQerrorMessage(conn), "");
    EXPECT_EQ(PQnotifies(conn), nullptr);
    EXPECT_EQ(PQbackendPID(conn), lent.backend_pid);
    for (const auto& [name, value] : lent.parameters->values) {
      EXPECT_STREQ(PQparameterStatus(conn, name.c_str()), value.c_str()) << name;
    }
    EXPECT_EQ(::fcntl(PQsocket(conn), F_GETFD), FD_CLOEXEC);
    EXPECT_NE(::fcntl(PQsocket(conn), F_GETFL) & O_NONBLOCK, 0);
  }

  static std::string Query(std::string_view sql) {
    std::string bytes;
    AppendMessage('Q', std::string(sql) + '\0', &bytes);
    return bytes;
  }
  // Of backend 4711, on channel c.
  static std::string Notification(std::string_view payload) {
    std::string bytes;
    AppendMessage(
        'A', std::string("\0\0\x12\x67", 4) + std::string("c\0", 2) + std::string(payload) + '\0',
        &bytes);
    return bytes;
  }

  Shells shells_;
  ScriptedDatanode first_, second_;
  std::string kept_identity_;
};

}  // namespace polarx
