// One datanode connection from the name lookup to the datanode's end of file; on its worker thread.
// What it does in between for the pooler is in datanode_run.cpp.
#include "engine/datanode.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cassert>
#include <cerrno>

#include "engine/adopt.h"
#include "engine/authentication.h"
#include "engine/connect_error.h"

namespace polarx {
namespace {

std::string Find(const Options& options, const char* keyword) {
  for (const auto& [name, value] : options) {
    if (name == keyword) {
      return value;
    }
  }
  return {};
}

// Only a name needs a lookup that may block.
bool NeedsLookup(const Options& options) {
  const std::string host = Find(options, "host");
  unsigned char address[sizeof(in6_addr)];
  return !host.empty() && host[0] != '/' && host[0] != '@' && Find(options, "hostaddr").empty() &&
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

std::string Seconds(std::chrono::seconds value) { return std::to_string(value.count()) + " s"; }

}  // namespace

// Edge-triggered: silent while a holder's data flow, one event when the datanode hangs up.
const std::uint32_t Datanode::kPassiveEvents = EPOLLRDHUP | EPOLLET;

Datanode::~Datanode() { FreeConnection(); }

// Changes what the descriptor is watched for. libpq closes its socket itself when it finds the
// connection broken: then there is nothing left to watch, and the number may soon be another's.
void Datanode::SetEvents(std::uint32_t events) {
  if (PQsocket(conn_) != watched_) {
    watched_ = -1;
  } else if (watched_ >= 0 && (events != events_ || (events & EPOLLONESHOT) != 0)) {
    host_->Rewatch(watched_, events, slot_);
    events_ = events;
  }
}

void Datanode::FreeConnection() {
  if (watched_ >= 0) {
    host_->Unwatch(watched_);
    watched_ = -1;
  }
  if (conn_ != nullptr) {
    PQfinish(conn_);
    conn_ = nullptr;
  }
}

// --- opening ------------------------------------------------------------------------------------

void Datanode::Connect(ConnectOrder order) {
  connect_ = std::move(order);
  helper_key_ = Find(connect_.options, "host") + ":" + Find(connect_.options, "port");
  host_->SetDeadline(slot_, connect_.deadline);
  if (NeedsLookup(connect_.options)) {
    phase_ = Phase::kLookingUp;
    host_->LookUp(slot_, Find(connect_.options, "host"));
  } else {
    StartConnect();
  }
}

void Datanode::OnLookedUp(const std::string& addresses, const std::string& error) {
  if (phase_ != Phase::kLookingUp) {
    return;
  }
  if (!error.empty()) {
    FailConnect(Status(sqlstate::kConnectionFailed,
                       "could not connect to datanode \"" + connect_.node_name +
                           "\": could not translate host name \"" + Find(connect_.options, "host") +
                           "\" to address: " + error));
    return;
  }
  addresses_ = Split(addresses);
  StartConnect();
}

void Datanode::StartConnect() {
  std::vector<const char*> keywords;
  std::vector<const char*> values;
  std::string hosts = Find(connect_.options, "host");
  const std::string addresses = Join(addresses_);
  if (!addresses.empty()) {
    hosts = Join(addresses_, &hosts);
    keywords.push_back("hostaddr");
    values.push_back(addresses.c_str());
  }
  for (const auto& [keyword, value] : connect_.options) {
    keywords.push_back(keyword.c_str());
    values.push_back(keyword == "host" ? hosts.c_str() : value.c_str());
  }
  keywords.push_back(nullptr);
  values.push_back(nullptr);
  phase_ = Phase::kConnecting;
  conn_ = PQconnectStartParams(keywords.data(), values.data(), 0);
  if (conn_ == nullptr) {
    FailConnect(ConnectErrorStatus(connect_.node_name, "out of memory"));
    return;
  }
  // Verbose, so that the text of a refusal has the SQLSTATE in it.
  PQsetErrorVerbosity(conn_, PQERRORS_VERBOSE);
  PQsetNoticeReceiver(
      conn_, [](void*, const PGresult*) {}, nullptr);
  if (PQstatus(conn_) == CONNECTION_BAD) {
    FailConnect(ConnectErrorStatus(connect_.node_name, PQerrorMessage(conn_)));
    return;
  }
  watched_ = PQsocket(conn_);
  host_->Watch(watched_, EPOLLOUT, slot_);
  address_ = addresses_.size();
  ShareTime();
}

// A host's addresses are tried in turn, and none may use up the time of those after it.
void Datanode::ShareTime() {
  const char* current = addresses_.size() > 1 ? PQhostaddr(conn_) : nullptr;
  if (current == nullptr || (address_ < addresses_.size() && addresses_[address_] == current)) {
    return;
  }
  const auto found = std::find(addresses_.begin(), addresses_.end(), current);
  if (found != addresses_.end()) {
    address_ = static_cast<std::size_t>(found - addresses_.begin());
    const TimePoint now = Now();
    const auto left = static_cast<Duration::rep>(addresses_.end() - found);
    host_->SetDeadline(slot_,
                       left == 1 ? connect_.deadline : now + (connect_.deadline - now) / left);
  }
}

// The address under way has had its time. False: it was the last.
bool Datanode::TryNextAddress() {
  if (phase_ != Phase::kConnecting || address_ + 1 >= addresses_.size()) {
    return false;
  }
  FreeConnection();
  addresses_.erase(addresses_.begin(),
                   addresses_.begin() + static_cast<std::ptrdiff_t>(address_) + 1);
  host_->SetDeadline(slot_, connect_.deadline);
  StartConnect();
  return true;
}

void Datanode::PollConnect() {
  if (PQstatus(conn_) == CONNECTION_AWAITING_RESPONSE) {
    char begin[1024];
    const ssize_t got = recv(watched_, begin, sizeof(begin), MSG_PEEK | MSG_DONTWAIT);
    const std::string_view come(begin, static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
    if (BeginsAnswer(come)) {
      reach_ = ConnectReach::kServer;
    }
    Status status = CheckAuthentication(connect_.node_name, come);
    if (!status.ok()) {
      FailConnect(std::move(status));
      return;
    }
  }
  // libpq may go on to the next address with another socket under the same number.
  host_->Unwatch(watched_);
  watched_ = -1;
  const PostgresPollingStatusType state = PQconnectPoll(conn_);
  if (state == PGRES_POLLING_FAILED) {
    const std::string text = PQerrorMessage(conn_);
    FailConnect(ConnectErrorStatus(connect_.node_name, text), IsPoolLimit(text));
    return;
  }
  watched_ = PQsocket(conn_);
  if (state != PGRES_POLLING_OK) {
    host_->Watch(watched_, state == PGRES_POLLING_READING ? EPOLLIN : EPOLLOUT, slot_);
    ShareTime();
    return;
  }
  if (PQsslInUse(conn_) || PQgssEncInUse(conn_) || PQsetnonblocking(conn_, 1) != 0) {
    FailConnect(Status(sqlstate::kFeatureNotSupported,
                       "connection to datanode \"" + connect_.node_name +
                           "\" is encrypted, which a lent connection cannot carry"));
    return;
  }
  PQsetErrorVerbosity(conn_, PQERRORS_DEFAULT);
  events_ = kPassiveEvents;
  host_->Watch(watched_, events_, slot_);
  host_->SetDeadline(slot_, kNever);
  phase_ = Phase::kPassive;
  reported_ = ReportedParameters(conn_);
  host_->Report(Connected{.slot = slot_,
                          .socket = watched_,
                          .remote_pid = PQbackendPID(conn_),
                          .password_used = PQconnectionUsedPassword(conn_) != 0,
                          .parameters = reported_});
}

void Datanode::FailConnect(Status status, bool pool_limit) {
  FreeConnection();
  host_->SetDeadline(slot_, kNever);
  phase_ = Phase::kFinished;
  host_->Report(ConnectFailed{slot_, std::move(status), pool_limit, reach_});
}

// --- cancelling and closing ---------------------------------------------------------------------

void Datanode::Cancel(const CancelOrder& order) {
  if (phase_ != Phase::kPassive) {
    return;
  }
  PGcancel* cancel = PQgetCancel(conn_);
  if (cancel == nullptr) {
    return;
  }
  ++cancels_;
  was_cancelled_ = true;
  host_->SetDeadline(slot_, order.deadline);
  host_->RunCancel(slot_, helper_key_, cancel);
}

void Datanode::OnCancelled() {
  if (--cancels_ > 0 || phase_ != Phase::kPassive) {
    return;
  }
  host_->SetDeadline(slot_, kNever);
  if (waiting_run_.has_value()) {
    RunOrder order = std::move(*waiting_run_);
    waiting_run_.reset();
    Run(std::move(order));
  }
}

void Datanode::Close(const CloseOrder& order) {
  assert(phase_ == Phase::kPassive || phase_ == Phase::kRunning);
  waiting_run_.reset();
  if (order.cancel) {
    if (PGcancel* cancel = PQgetCancel(conn_); cancel != nullptr) {
      ++cancels_;
      host_->RunCancel(slot_, helper_key_, cancel);
    }
  }
  // close(2) alone leaves the datanode's backend alive while another process has a copy, and at
  // PQfinish the datanode still counts the connection: its end of file tells when it is gone.
  draining_.Reset(fcntl(PQsocket(conn_), F_DUPFD_CLOEXEC, 0));
  if (!draining_) {
    shutdown(PQsocket(conn_), SHUT_RDWR);
  }
  FreeConnection();
  if (!draining_) {
    Finish(false);  // libpq has seen the end already
    return;
  }
  shutdown(draining_.get(), SHUT_WR);
  phase_ = Phase::kDraining;
  watched_ = draining_.get();
  host_->SetDeadline(slot_, order.deadline);
  host_->Watch(watched_, EPOLLIN | EPOLLRDHUP, slot_);
}

void Datanode::Abandon() {
  if (conn_ != nullptr && PQsocket(conn_) == watched_ && watched_ >= 0) {
    host_->Unwatch(watched_);
    watched_ = -1;
    const UniqueFd nobody(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!nobody || !PutUnder(conn_, nobody.get())) {
      shutdown(PQsocket(conn_), SHUT_RDWR);  // without a descriptor it cannot be left to its holder
    }
  }
}

void Datanode::Drain() {
  char buffer[16384];
  for (int rounds = 0; rounds < 64; ++rounds) {
    const ssize_t got = recv(draining_.get(), buffer, sizeof(buffer), MSG_DONTWAIT);
    if (got > 0 || (got < 0 && errno == EINTR)) {
      continue;
    }
    if (got < 0 && errno == EAGAIN) {
      return;
    }
    Finish(false);
    return;
  }
}

void Datanode::Finish(bool timed_out) {
  if (watched_ >= 0) {
    host_->Unwatch(watched_);
    watched_ = -1;
  }
  if (draining_) {
    shutdown(draining_.get(), SHUT_RDWR);
  }
  draining_.Reset();
  host_->SetDeadline(slot_, kNever);
  phase_ = Phase::kFinished;
  host_->Report(Closed{slot_, timed_out});
}

// --- what the worker's loop tells ---------------------------------------------------------------

void Datanode::OnEvents(std::uint32_t events) {
  switch (phase_) {
    case Phase::kConnecting:
      PollConnect();
      break;
    case Phase::kPassive:
      if ((events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0 && !hung_up_) {
        hung_up_ = true;
        host_->Report(HungUp{slot_, "datanode closed the connection"});
      }
      break;
    case Phase::kRunning:
      sent_answer_.has_value() ? ReadSentAnswer() : ReadResults();
      break;
    case Phase::kDraining:
      Drain();
      break;
    case Phase::kLookingUp:
    case Phase::kFinished:
      break;
  }
}

void Datanode::OnDeadline() {
  switch (phase_) {
    case Phase::kLookingUp:
    case Phase::kConnecting:
      if (TryNextAddress()) {
        break;
      }
      FailConnect(Status(sqlstate::kConnectionFailed,
                         "could not connect to datanode \"" + connect_.node_name +
                             "\": pooler.pooler_connect_timeout (" + Seconds(connect_.timeout) +
                             ") is over while " +
                             (phase_ == Phase::kLookingUp ? "its host name was looked up"
                                                          : "the connection was opened")));
      break;
    case Phase::kRunning:
      timed_out_ = true;
      FailRun("pooler.pooler_dn_set_timeout (" + Seconds(run_.timeout) +
              ") is over without an answer");
      break;
    case Phase::kPassive:
      if (waiting_run_.has_value()) {
        run_ = std::move(*waiting_run_);
        waiting_run_.reset();
        FailRun("a cancel request is stuck");
      } else if (!hung_up_) {
        hung_up_ = true;
        host_->Report(HungUp{slot_, "a cancel request is stuck"});
      }
      break;
    case Phase::kDraining:
      Finish(true);
      break;
    case Phase::kFinished:
      break;
  }
}

}  // namespace polarx
