// Asks a datanode for a sign of life by beginning a startup; blocks, on a helper thread.
#include "engine/startup_ping.h"

#include <libpq-fe.h>
#include <poll.h>

#include <algorithm>
#include <memory>
#include <sstream>
#include <vector>

#include "core/time.h"
#include "engine/connect_error.h"
#include "engine/lookups.h"

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

// A path stands for itself, and so does an address.
Result<std::vector<std::string>> AddressesOf(const std::string& node_name,
                                             const std::string& host) {
  if (host.empty() || host[0] == '/' || host[0] == '@') {
    return std::vector<std::string>(1);
  }
  const LookupResult found = LookUpHost(host);
  if (!found.error.empty()) {
    return Status(sqlstate::kConnectionFailed, "could not connect to datanode \"" + node_name +
                                                   "\": could not translate host name \"" + host +
                                                   "\" to address: " + found.error);
  }
  std::vector<std::string> addresses;
  std::istringstream list(found.addresses);
  for (std::string address; std::getline(list, address, ',');) {
    addresses.push_back(address);
  }
  return addresses;
}

}  // namespace

Status NoAnswerToPing(const std::string& node_name, std::chrono::seconds limit) {
  return Status(sqlstate::kConnectionFailed, "no answer from datanode \"" + node_name +
                                                 "\": pooler.pooler_dn_set_timeout (" +
                                                 std::to_string(limit.count()) + " s) is over");
}

namespace {

// `address`: one of the host's; "": the host is a path.
Status PingAddress(const std::string& node_name, const std::string& host,
                   const std::string& address, const std::string& port, TimePoint deadline,
                   std::chrono::seconds limit) {
  const std::string seconds = std::to_string(std::max(MillisecondsUntil(deadline) / 1000, 2));
  const char* keywords[] = {
      "host",       "hostaddr",        "port", "user", "dbname", "passfile", "sslmode",
      "gssencmode", "connect_timeout", nullptr};
  const char* values[] = {host.c_str(),    address.c_str(),  port.c_str(), "polarx_pooler",
                          "polarx_pooler", "/dev/null/none", "disable",    "disable",
                          seconds.c_str(), nullptr};
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

}  // namespace

Status StartupPing(const std::string& node_name, const std::string& host, const std::string& port,
                   TimePoint deadline, std::chrono::seconds limit) {
  const Result<std::vector<std::string>> addresses = AddressesOf(node_name, host);
  if (!addresses.ok()) {
    return addresses.status();
  }
  Status status = NoAnswerToPing(node_name, limit);
  for (std::size_t i = 0; i < addresses.value().size(); ++i) {
    const TimePoint now = Now();
    const auto left = static_cast<Duration::rep>(addresses.value().size() - i);
    status = PingAddress(node_name, host, addresses.value()[i], port, now + (deadline - now) / left,
                         limit);
    if (status.ok()) {
      break;
    }
  }
  return status;
}

}  // namespace polarx
