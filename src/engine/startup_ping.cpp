// Asks a datanode for a sign of life by beginning a startup; blocks, on a helper thread.
#include "engine/startup_ping.h"

#include <libpq-fe.h>
#include <poll.h>

#include <algorithm>
#include <memory>

#include "core/time.h"
#include "engine/connect_error.h"

namespace polarx {
namespace {

using Connection = std::unique_ptr<PGconn, decltype(&PQfinish)>;

// False: the time is over.
bool Finish(PGconn* conn, TimePoint deadline) {
  PostgresPollingStatusType state = PGRES_POLLING_WRITING;
  while (PQstatus(conn) != CONNECTION_BAD && state != PGRES_POLLING_OK &&
         state != PGRES_POLLING_FAILED) {
    pollfd wait{PQsocket(conn),
                static_cast<short>(state == PGRES_POLLING_READING ? POLLIN : POLLOUT), 0};
    const int left = MillisecondsUntil(deadline);
    if (left == 0 || poll(&wait, 1, left) == 0) {
      return false;
    }
    state = PQconnectPoll(conn);
  }
  return true;
}

}  // namespace

Status NoAnswerToPing(const std::string& node_name, std::chrono::seconds limit) {
  return Status(sqlstate::kConnectionFailed, "no answer from datanode \"" + node_name +
                                                 "\": pooler.pooler_dn_set_timeout (" +
                                                 std::to_string(limit.count()) + " s) is over");
}

Status StartupPing(const std::string& node_name, const std::string& host, const std::string& port,
                   TimePoint deadline, std::chrono::seconds limit) {
  const std::string seconds = std::to_string(std::max(MillisecondsUntil(deadline) / 1000, 2));
  const char* keywords[] = {"host",     "port",    "user",       "dbname",
                            "passfile", "sslmode", "gssencmode", "connect_timeout",
                            nullptr};
  const char* values[] = {host.c_str(),    port.c_str(),     "polarx_pooler",
                          "polarx_pooler", "/dev/null/none", "disable",
                          "disable",       seconds.c_str(),  nullptr};
  const Connection conn(PQconnectStartParams(keywords, values, 0), &PQfinish);
  if (conn == nullptr) {
    return ConnectErrorStatus(node_name, "out of memory");
  }
  PQsetErrorVerbosity(conn.get(), PQERRORS_VERBOSE);  // with the SQLSTATE of a refusal
  if (!Finish(conn.get(), deadline)) {
    return NoAnswerToPing(node_name, limit);
  }
  if (PQstatus(conn.get()) == CONNECTION_OK || PQconnectionNeedsPassword(conn.get()) != 0) {
    return Status::Ok();
  }
  const Status refusal = ConnectErrorStatus(node_name, PQerrorMessage(conn.get()));
  if (refusal.sqlstate() == sqlstate::kCannotConnectNow) {
    return Status(sqlstate::kCannotConnectNow,
                  "datanode \"" + node_name + "\" is up but accepts no connections now");
  }
  if (refusal.sqlstate() != sqlstate::kConnectionFailed) {
    return Status::Ok();  // a server has said that
  }
  // An authentication that this client cannot do looks like no answer at all.
  const PGPing answer =
      MillisecondsUntil(deadline) > 2000 ? PQpingParams(keywords, values, 0) : PQPING_NO_RESPONSE;
  return answer == PQPING_OK ? Status::Ok() : refusal;
}

}  // namespace polarx
