// A datanode connection from the name lookup to the end of the login; on its worker thread.
#include "engine/connecting.h"

#include <arpa/inet.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include "engine/adopt.h"
#include "engine/connect_error.h"

namespace polarx {
namespace {

// Only a name needs a lookup that may block.
bool NeedsLookup(const Options& options) {
  const std::string host = FindOption(options, "host");
  unsigned char address[sizeof(in6_addr)];
  return !host.empty() && host[0] != '/' && host[0] != '@' &&
         FindOption(options, "hostaddr").empty() &&
         inet_pton(AF_INET, host.c_str(), address) != 1 &&
         inet_pton(AF_INET6, host.c_str(), address) != 1;
}

std::vector<std::string> Split(const std::string& list) {
  std::vector<std::string> parts;
  for (std::size_t at = 0; at < list.size();) {
    const std::size_t end = std::min(list.find(',', at), list.size());
    parts.push_back(list.substr(at, end - at));
    at = end + 1;
  }
  return parts;
}

// `value`, or that many of it, in a list.
std::string Join(const std::vector<std::string>& parts, const std::string* value = nullptr) {
  std::string result;
  for (const std::string& part : parts) {
    result += (result.empty() ? "" : ",") + (value != nullptr ? *value : part);
  }
  return result;
}

// Is libpq past its startup packet, with the datanode's answer to come?
bool LogsIn(ConnStatusType status) {
  switch (status) {
    case CONNECTION_STARTED:
    case CONNECTION_MADE:
    case CONNECTION_NEEDED:
    case CONNECTION_SSL_STARTUP:
    case CONNECTION_GSS_STARTUP:
    case CONNECTION_BAD:
      return false;
    default:
      return true;
  }
}

std::string SystemError() { return std::generic_category().message(errno); }

}  // namespace

std::string FindOption(const Options& options, const char* keyword) {
  for (const auto& [name, value] : options) {
    if (name == keyword) {
      return value;
    }
  }
  return {};
}

Connecting::Connecting(DatanodeHost* host, DatanodeLink* link, ConnectOrder order)
    : host_(host),
      link_(link),
      order_(std::move(order)),
      server_(FindOption(order_.options, "host") + ' ' + FindOption(order_.options, "hostaddr") +
              ' ' + FindOption(order_.options, "port")) {}

std::optional<Connecting::Outcome> Connecting::Begin() {
  host_->SetDeadline(order_.slot, order_.deadline);
  if (!NeedsLookup(order_.options)) {
    return Start();
  }
  looking_up_ = true;
  host_->LookUp(order_.slot, FindOption(order_.options, "host"));
  return std::nullopt;
}

std::optional<Connecting::Outcome> Connecting::OnLookedUp(const std::string& addresses,
                                                          const std::string& error) {
  if (!looking_up_) {
    return std::nullopt;
  }
  looking_up_ = false;
  if (!error.empty()) {
    return FailFor(sqlstate::kConnectionFailed, "could not translate host name \"" +
                                                    FindOption(order_.options, "host") +
                                                    "\" to address: " + error);
  }
  addresses_ = Split(addresses);
  return Start();
}

std::optional<Connecting::Outcome> Connecting::Start() {
  std::vector<const char*> keywords;
  std::vector<const char*> values;
  std::string hosts = FindOption(order_.options, "host");
  const std::string addresses = Join(addresses_);
  if (!addresses.empty()) {
    hosts = Join(addresses_, &hosts);
    keywords.push_back("hostaddr");
    values.push_back(addresses.c_str());
  }
  for (const auto& [keyword, value] : order_.options) {
    keywords.push_back(keyword.c_str());
    values.push_back(keyword == "host" ? hosts.c_str() : value.c_str());
  }
  const TransactionTimeouts* timeouts = host_->transaction_timeouts();
  timeout_off_ = timeouts != nullptr && timeouts->Known(server_);
  const std::string settings = FindOption(order_.options, "options") + TransactionTimeouts::kOff;
  if (timeout_off_) {
    keywords.push_back("options");  // the last one of a keyword counts
    values.push_back(settings.c_str());
  }
  keywords.push_back(nullptr);
  values.push_back(nullptr);
  PGconn* conn = PQconnectStartParams(keywords.data(), values.data(), 0);
  if (conn == nullptr) {
    return Fail(ConnectErrorStatus(order_.node_name, "out of memory"));
  }
  link_->Own(conn);
  // Verbose, so that the text of a refusal has the SQLSTATE in it.
  PQsetErrorVerbosity(conn, PQERRORS_VERBOSE);
  PQsetNoticeReceiver(
      conn, [](void*, const PGresult*) {}, nullptr);
  if (PQstatus(conn) == CONNECTION_BAD) {
    return Fail(ConnectErrorStatus(order_.node_name, PQerrorMessage(conn)));
  }
  link_->Watch(EPOLLOUT, link_->socket());
  address_ = addresses_.size();
  ShareTime();
  return std::nullopt;
}

// A host's addresses are tried in turn, and none may use up the time of those after it.
void Connecting::ShareTime() {
  const char* current = addresses_.size() > 1 ? PQhostaddr(link_->conn()) : nullptr;
  if (current == nullptr || (address_ < addresses_.size() && addresses_[address_] == current)) {
    return;
  }
  const auto found = std::find(addresses_.begin(), addresses_.end(), current);
  if (found != addresses_.end()) {
    address_ = static_cast<std::size_t>(found - addresses_.begin());
    const TimePoint now = Now();
    const auto left = static_cast<Duration::rep>(addresses_.end() - found);
    host_->SetDeadline(order_.slot,
                       left == 1 ? order_.deadline : now + (order_.deadline - now) / left);
  }
}

// Goes on to the next address. False: the one that has had its time was the last.
bool Connecting::TryNextAddress() {
  if (looking_up_ || address_ + 1 >= addresses_.size()) {
    return false;
  }
  GiveUp();
  addresses_.erase(addresses_.begin(),
                   addresses_.begin() + static_cast<std::ptrdiff_t>(address_) + 1);
  host_->SetDeadline(order_.slot, order_.deadline);
  return true;
}

// The connection is open, or the datanode has refused it. True: it is to be begun anew, with or
// without a setting that not all versions of servers know.
bool Connecting::OpensAgain() {
  TransactionTimeouts* timeouts = host_->transaction_timeouts();
  PGconn* conn = link_->conn();
  const bool again = timeouts != nullptr &&
                     (PQstatus(conn) == CONNECTION_OK
                          ? !timeout_off_ && timeouts->LearnVersion(server_, PQserverVersion(conn))
                          : timeout_off_ && timeouts->LearnRefusal(server_, PQerrorMessage(conn)));
  if (again) {
    GiveUp();
  }
  return again;
}

std::optional<Connecting::Outcome> Connecting::OnEvents() {
  if (looking_up_) {
    return std::nullopt;
  }
  PGconn* conn = link_->conn();
  if (!LogsIn(PQstatus(conn))) {
    // libpq may go on to the next address with another socket under the same number.
    link_->Unwatch();
    return Polled(PQconnectPoll(conn));
  }
  if (!relay_.has_value()) {
    link_->Unwatch();
    if (!relay_.emplace().Begin(conn)) {
      return Fail(ConnectErrorStatus(order_.node_name, SystemError()));
    }
    guard_.BeginAgain();
    link_->Watch(EPOLLIN, relay_->socket());
  }
  return LogIn();
}

std::optional<Connecting::Outcome> Connecting::LogIn() {
  PGconn* conn = link_->conn();
  const std::size_t fresh = relay_->Read(StartupGuard::kWindow);
  StartupGuard::Verdict verdict =
      guard_.Look(relay_->unread(), fresh, PQstatus(conn) != CONNECTION_AWAITING_RESPONSE);
  if (verdict.step == StartupGuard::Step::kWait && relay_->ended()) {
    verdict.step = StartupGuard::Step::kLeave;  // no more can come
  }
  switch (verdict.step) {
    case StartupGuard::Step::kWait:
      return std::nullopt;
    case StartupGuard::Step::kFeed:
      return Polled(relay_->Feed(conn, verdict.size));
    case StartupGuard::Step::kLeave:
      return Polled(relay_->Feed(conn, relay_->unread().size()));
    case StartupGuard::Step::kRefuse:
      break;
  }
  return FailFor(verdict.demand ? sqlstate::kInvalidAuthorization : sqlstate::kProtocolViolation,
                 verdict.why);
}

std::optional<Connecting::Outcome> Connecting::Polled(PostgresPollingStatusType state) {
  PGconn* conn = link_->conn();
  switch (state) {
    case PGRES_POLLING_OK:
      return Succeed();
    case PGRES_POLLING_FAILED: {
      if (OpensAgain()) {
        return Start();
      }
      const std::string text = PQerrorMessage(conn);
      return Fail(ConnectErrorStatus(order_.node_name, text), IsPoolLimit(text));
    }
    default:
      break;
  }
  if (relay_.has_value() && LogsIn(PQstatus(conn))) {
    return std::nullopt;
  }
  if (relay_.has_value()) {
    link_->Unwatch();
    relay_.reset();  // libpq has another socket
  }
  link_->Watch(state == PGRES_POLLING_READING ? EPOLLIN : EPOLLOUT, link_->socket());
  ShareTime();
  return std::nullopt;
}

std::optional<Connecting::Outcome> Connecting::Succeed() {
  PGconn* conn = link_->conn();
  link_->Unwatch();
  const bool nothing_left = relay_.has_value() && relay_->unread().empty();
  if (!relay_.has_value() || !relay_->End(conn)) {
    return Fail(ConnectErrorStatus(order_.node_name, SystemError()));
  }
  relay_.reset();
  // Non-blocking, so that its goodbye cannot block either.
  if (PQsslInUse(conn) || PQgssEncInUse(conn) || PQsetnonblocking(conn, 1) != 0) {
    return Fail(Status(sqlstate::kFeatureNotSupported,
                       "connection to datanode \"" + order_.node_name +
                           "\" is encrypted, which a lent connection cannot carry"));
  }
  char byte;
  if (!nothing_left || recv(link_->socket(), &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0) {
    return FailFor(sqlstate::kProtocolViolation, "it sent more than the answer to the startup");
  }
  if (OpensAgain()) {
    return Start();
  }
  return Connected{.slot = order_.slot,
                   .socket = link_->socket(),
                   .remote_pid = PQbackendPID(conn),
                   .password_used = PQconnectionUsedPassword(conn) != 0,
                   .parameters = ReportedParameters(conn)};
}

std::optional<Connecting::Outcome> Connecting::OnDeadline() {
  if (TryNextAddress()) {
    return Start();
  }
  return FailFor(sqlstate::kConnectionFailed,
                 "pooler.pooler_connect_timeout (" + std::to_string(order_.timeout.count()) +
                     " s) is over while " +
                     (looking_up_ ? "its host name was looked up" : "the connection was opened"));
}

Connecting::Outcome Connecting::FailFor(const char* sqlstate, const std::string& why) {
  return Fail(
      Status(sqlstate, "could not connect to datanode \"" + order_.node_name + "\": " + why));
}

void Connecting::GiveUp() {
  link_->Free();
  relay_.reset();
}

Connecting::Outcome Connecting::Fail(Status status, bool pool_limit) {
  GiveUp();
  return ConnectFailed{
      .slot = order_.slot,
      .status = std::move(status),
      .pool_limit = pool_limit,
      .reach = guard_.server_answered() ? ConnectReach::kServer : ConnectReach::kNothing};
}

}  // namespace polarx
