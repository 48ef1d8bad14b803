// One datanode connection from the name lookup to the statements the pooler sends; on its worker
// thread.
#include "polarx_pooler/engine/datanode.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cassert>
#include <cerrno>

#include "polarx_pooler/engine/adopt.h"
#include "polarx_pooler/engine/connect_error.h"

namespace polarx {
namespace {

// Edge-triggered: silent while a holder's data flow, one event when the datanode hangs up.
constexpr std::uint32_t kPassiveEvents = EPOLLRDHUP | EPOLLET;
// One shot a time: libpq closes its socket when it finds the connection broken, and while another
// process has a copy the entry would go on firing with nothing left to remove it by.
constexpr std::uint32_t kActiveEvents = EPOLLIN | EPOLLRDHUP | EPOLLONESHOT;

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

std::string Repeat(const std::string& value, std::size_t times) {
  std::string result = value;
  for (; times > 1; --times) {
    result += "," + value;
  }
  return result;
}

std::string Seconds(std::chrono::seconds value) { return std::to_string(value.count()) + " s"; }

}  // namespace

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
    StartConnect("");
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
  StartConnect(addresses);
}

void Datanode::StartConnect(const std::string& addresses) {
  std::vector<const char*> keywords;
  std::vector<const char*> values;
  std::string hosts = Find(connect_.options, "host");
  if (!addresses.empty()) {
    hosts = Repeat(
        hosts, static_cast<std::size_t>(std::count(addresses.begin(), addresses.end(), ',') + 1));
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
}

void Datanode::PollConnect() {
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
  host_->Report(Connected{.slot = slot_,
                          .socket = watched_,
                          .remote_pid = PQbackendPID(conn_),
                          .password_used = PQconnectionUsedPassword(conn_) != 0,
                          .parameters = ReportedParameters(conn_)});
}

void Datanode::FailConnect(Status status, bool pool_limit) {
  FreeConnection();
  host_->SetDeadline(slot_, kNever);
  phase_ = Phase::kFinished;
  host_->Report(ConnectFailed{slot_, std::move(status), pool_limit});
}

// --- statements of the pooler -------------------------------------------------------------------

void Datanode::Run(RunOrder order) {
  assert(phase_ == Phase::kPassive);
  if (cancels_ > 0) {
    // Else it would hit the reset, or the next holder's statement.
    host_->SetDeadline(slot_, order.deadline);
    waiting_run_ = std::move(order);
    return;
  }
  run_ = std::move(order);
  statement_ = 0;
  retried_ = false;
  for (const std::string& name : run_.verify) {
    run_.statements.push_back("SELECT pg_catalog.current_setting('" + name + "')");
  }
  phase_ = Phase::kRunning;
  host_->SetDeadline(slot_, run_.deadline);
  SetEvents(kActiveEvents);
  NextStatement();
}

void Datanode::NextStatement() {
  if (statement_ == run_.statements.size()) {
    const bool over = PQtransactionStatus(conn_) == PQTRANS_IDLE;
    FinishRun(over ? Status::Ok()
                   : Status(sqlstate::kConnectionLost, "it was left inside a transaction"));
    return;
  }
  statement_status_ = Status::Ok();
  if (PQsendQuery(conn_, run_.statements[statement_].c_str()) == 0) {
    FailRun(OneLine(PQerrorMessage(conn_)));
    return;
  }
  ReadResults();
}

void Datanode::ReadResults() {
  const int unsent = PQflush(conn_);
  if (unsent < 0 || PQconsumeInput(conn_) == 0) {
    FailRun(OneLine(PQerrorMessage(conn_)));
    return;
  }
  SetEvents(unsent > 0 ? kActiveEvents | EPOLLOUT : kActiveEvents);
  while (PQisBusy(conn_) == 0) {
    PGresult* result = PQgetResult(conn_);
    if (result == nullptr) {
      if (!statement_status_.ok()) {
        const bool late_cancel =
            was_cancelled_ && !retried_ && statement_status_.sqlstate() == sqlstate::kQueryCanceled;
        if (!late_cancel) {
          FinishRun(std::move(statement_status_));
          return;
        }
        retried_ = true;
      } else {
        ++statement_;
      }
      NextStatement();
      return;
    }
    const ExecStatusType state = PQresultStatus(result);
    const std::size_t first_verify = run_.statements.size() - run_.verify.size();
    if (state == PGRES_TUPLES_OK && statement_ >= first_verify && PQntuples(result) == 1) {
      const std::string& name = run_.verify[statement_ - first_verify];
      std::erase_if(overrides_, [&](const auto& entry) { return entry.first == name; });
      overrides_.emplace_back(name, PQgetvalue(result, 0, 0));
    } else if (state != PGRES_TUPLES_OK && state != PGRES_COMMAND_OK &&
               state != PGRES_EMPTY_QUERY) {
      const char* code = PQresultErrorField(result, PG_DIAG_SQLSTATE);
      const std::string text = OneLine(PQresultErrorMessage(result));
      statement_status_ = Status(code != nullptr ? code : sqlstate::kConnectionLost,
                                 text.empty() ? "unexpected answer" : text);
    }
    PQclear(result);
    if (state == PGRES_COPY_IN || state == PGRES_COPY_OUT || state == PGRES_COPY_BOTH) {
      FailRun("a statement of the pooler started a COPY");
      return;
    }
  }
}

void Datanode::FinishRun(Status status) {
  while (PGnotify* notify = PQnotifies(conn_)) {
    PQfreemem(notify);
  }
  host_->SetDeadline(slot_, kNever);
  phase_ = Phase::kPassive;
  SetEvents(kPassiveEvents);
  if (!status.ok() && PQtransactionStatus(conn_) != PQTRANS_IDLE) {
    status = Status(sqlstate::kConnectionLost, status.message());  // not fit to be lent
  }
  was_cancelled_ = false;
  RunDone done{.slot = slot_, .kind = run_.kind, .status = std::move(status), .parameters = {}};
  if (done.status.ok()) {
    done.parameters = ReportedParameters(conn_);
    for (auto& [name, value] : done.parameters) {
      for (const auto& [wrong, truth] : overrides_) {
        if (name == wrong) {
          value = truth;
        }
      }
    }
  }
  host_->Report(std::move(done));
}

void Datanode::FailRun(const std::string& reason) {
  FinishRun(Status(sqlstate::kConnectionLost,
                   reason.empty() ? "datanode closed the connection" : reason));
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
    DetachConnection(conn_);
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
      ReadResults();
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
      FailConnect(Status(sqlstate::kConnectionFailed,
                         "could not connect to datanode \"" + connect_.node_name +
                             "\": pooler.pooler_connect_timeout (" + Seconds(connect_.timeout) +
                             ") is over while " +
                             (phase_ == Phase::kLookingUp ? "its host name was looked up"
                                                          : "the connection was opened")));
      break;
    case Phase::kRunning:
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
