// The statements that the pooler itself sends on a connection: reset, warm-up, ping; on its worker
// thread.
#include <sys/epoll.h>

#include <algorithm>
#include <cassert>
#include <utility>

#include "engine/adopt.h"
#include "engine/connect_error.h"
#include "engine/datanode.h"

namespace polarx {
namespace {

// One shot a time: libpq closes its socket when it finds the connection broken, and while another
// process has a copy the entry would go on firing with nothing left to remove it by.
constexpr std::uint32_t kActiveEvents = EPOLLIN | EPOLLRDHUP | EPOLLONESHOT;

// May the answer be that there was nothing to do? Else what has come is no answer to it.
bool MayBeEmpty(std::string_view statement) {
  const std::size_t first = statement.find_first_not_of(" \t\r\n\f\v;");
  return first == std::string_view::npos || statement.compare(first, 2, "--") == 0 ||
         statement.compare(first, 2, "/*") == 0;
}

}  // namespace

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
  measured_.reset();
  phase_ = Phase::kRunning;
  host_->SetDeadline(slot_, run_.deadline);
  if (run_.first_sent) {
    sent_answer_.emplace(MayBeEmpty(run_.statements.front()));
    SetEvents(kActiveEvents);
    return;
  }
  AddOwnStatements();
  NextStatement();
}

// What is asked behind the statements.
void Datanode::AddOwnStatements() {
  // As long as libpq's copy is behind, it cannot tell a change from what it missed.
  for (const auto& [name, truth] : overrides_) {
    if (std::find(run_.verify.begin(), run_.verify.end(), name) == run_.verify.end()) {
      run_.verify.push_back(name);
    }
  }
  for (const std::string& name : run_.verify) {
    run_.statements.push_back("SELECT pg_catalog.current_setting('" + name + "')");
  }
  if (!run_.measure.empty()) {
    run_.statements.push_back(run_.measure);
  }
}

// libpq knows nothing of the statement, nor of the values reported with its answer.
void Datanode::ReadSentAnswer() {
  switch (sent_answer_->Read(PQsocket(conn_))) {
    case AnswerReader::State::kMore:
      SetEvents(kActiveEvents);
      return;
    case AnswerReader::State::kFailed:
      hung_up_ = true;  // if it has: this says as much
      FailRun(sent_answer_->error());
      return;
    case AnswerReader::State::kDone:
      break;
  }
  for (const auto& [name, value] : reported_) {
    const std::vector<std::string>& told = sent_answer_->parameters();
    if (std::find(told.begin(), told.end(), name) != told.end()) {
      run_.verify.push_back(name);
    }
  }
  sent_answer_.reset();
  statement_ = 1;
  AddOwnStatements();
  NextStatement();
}

// Is the statement under way the last one, whose value is wanted?
bool Datanode::Measuring() const {
  return !run_.measure.empty() && statement_ + 1 == run_.statements.size();
}

void Datanode::NextStatement() {
  if (statement_ == run_.statements.size()) {
    const bool over = PQtransactionStatus(conn_) == PQTRANS_IDLE;
    FinishRun(over ? Status::Ok()
                   : Status(sqlstate::kConnectionLost, "it was left inside a transaction"));
    return;
  }
  statement_status_ = Status::Ok();
  answered_ = false;
  if (PQsendQuery(conn_, run_.statements[statement_].c_str()) == 0) {
    FailRun(OneLine(PQerrorMessage(conn_)));
    return;
  }
  Await();
}

// Sends what is left of the statement and looks out for the answer.
void Datanode::Await() {
  const int unsent = PQflush(conn_);
  if (unsent < 0) {
    FailRun(OneLine(PQerrorMessage(conn_)));
    return;
  }
  SetEvents(unsent > 0 ? kActiveEvents | EPOLLOUT : kActiveEvents);
}

void Datanode::ReadResults() {
  if (PQconsumeInput(conn_) == 0) {
    FailRun(OneLine(PQerrorMessage(conn_)));
    return;
  }
  while (PQisBusy(conn_) == 0) {
    PGresult* result = PQgetResult(conn_);
    if (result == nullptr) {
      if (!answered_) {
        return FailRun("datanode gave no answer, but is ready for the next statement");
      }
      if (!statement_status_.ok()) {
        const bool late_cancel =
            was_cancelled_ && !retried_ && statement_status_.sqlstate() == sqlstate::kQueryCanceled;
        if (Measuring() && !late_cancel && PQtransactionStatus(conn_) == PQTRANS_IDLE) {
          FinishRun(Status::Ok());  // it may fail
          return;
        }
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
    answered_ = true;
    const ExecStatusType state = PQresultStatus(result);
    const std::size_t first_verify =
        run_.statements.size() - run_.verify.size() - (run_.measure.empty() ? 0 : 1);
    if (state == PGRES_TUPLES_OK && Measuring()) {
      if (PQntuples(result) == 1 && PQgetisnull(result, 0, 0) == 0) {
        measured_ = PQgetvalue(result, 0, 0);
      }
    } else if (state == PGRES_TUPLES_OK && statement_ >= first_verify && PQntuples(result) == 1 &&
               PQnfields(result) == 1) {
      const std::string& name = run_.verify[statement_ - first_verify];
      std::erase_if(overrides_, [&](const auto& entry) { return entry.first == name; });
      overrides_.emplace_back(name, PQgetvalue(result, 0, 0));
    } else if (state != PGRES_TUPLES_OK && state != PGRES_COMMAND_OK &&
               !(state == PGRES_EMPTY_QUERY && MayBeEmpty(run_.statements[statement_]))) {
      const char* code = PQresultErrorField(result, PG_DIAG_SQLSTATE);
      const std::string text = OneLine(PQresultErrorMessage(result));
      statement_status_ =
          Status(code != nullptr && IsSqlstate(code) ? code : sqlstate::kConnectionLost,
                 text.empty() ? "unexpected answer" : text);
    }
    PQclear(result);
    if (state == PGRES_COPY_IN || state == PGRES_COPY_OUT || state == PGRES_COPY_BOTH) {
      FailRun("a statement of the pooler started a COPY");
      return;
    }
  }
  Await();
}

void Datanode::FinishRun(Status status) {
  while (PGnotify* notify = PQnotifies(conn_)) {
    PQfreemem(notify);
  }
  host_->SetDeadline(slot_, kNever);
  phase_ = Phase::kPassive;
  sent_answer_.reset();
  SetEvents(kPassiveEvents);
  const PGTransactionStatusType state = PQtransactionStatus(conn_);
  const bool in_transaction = state == PQTRANS_INTRANS || state == PQTRANS_INERROR;
  if (!status.ok() && PQtransactionStatus(conn_) != PQTRANS_IDLE) {
    status = Status(sqlstate::kConnectionLost, status.message());  // not fit to be lent
  }
  was_cancelled_ = false;
  RunDone done{.slot = slot_,
               .kind = run_.kind,
               .status = std::move(status),
               .parameters = {},
               .value = std::exchange(measured_, std::nullopt),
               .timed_out = std::exchange(timed_out_, false),
               .in_transaction = in_transaction};
  if (done.status.ok()) {
    done.parameters = NewParameters();
  }
  host_->Report(std::move(done));
}

// Unset: they are those that were reported last.
std::optional<protocol::Parameters> Datanode::NewParameters() {
  if (overrides_.empty() && ReportsStill(conn_, reported_)) {
    return std::nullopt;
  }
  protocol::Parameters values = ReportedParameters(conn_);
  for (auto& [name, value] : values) {
    for (const auto& [wrong, truth] : overrides_) {
      if (name == wrong) {
        value = truth;
      }
    }
  }
  std::erase_if(overrides_, [this](const auto& entry) {
    const char* known = PQparameterStatus(conn_, entry.first.c_str());
    return known != nullptr && entry.second == known;  // libpq hears of the next change again
  });
  if (values == reported_) {
    return std::nullopt;
  }
  reported_ = values;
  return values;
}

void Datanode::FailRun(const std::string& reason) {
  FinishRun(Status(sqlstate::kConnectionLost,
                   reason.empty() ? "datanode closed the connection" : reason));
}

}  // namespace polarx
