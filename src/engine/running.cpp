// The statements that the pooler itself sends on a connection: reset, warm-up, ping, memory check;
// on its worker thread.
#include "engine/running.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <system_error>
#include <utility>

#include "engine/adopt.h"
#include "engine/server_messages.h"

namespace polarx {
namespace {

// May the answer be that there was nothing to do? Else what has come is no answer to it.
bool MayBeEmpty(std::string_view statement) {
  const std::size_t first = statement.find_first_not_of(" \t\r\n\f\v;");
  return first == std::string_view::npos || statement.compare(first, 2, "--") == 0 ||
         statement.compare(first, 2, "/*") == 0;
}

// Names keep the order of kReportedParameters.
void SetParameter(const std::string& name, const std::string& value,
                  protocol::Parameters* parameters) {
  const auto place = [](const std::string& of) {
    return std::find(std::begin(kReportedParameters), std::end(kReportedParameters), of);
  };
  const auto next = std::find_if(parameters->begin(), parameters->end(), [&](const auto& entry) {
    return place(entry.first) >= place(name);
  });
  if (next != parameters->end() && next->first == name) {
    next->second = value;
  } else {
    parameters->emplace(next, name, value);
  }
}

}  // namespace

Running::Running(RunOrder order, int socket, bool was_cancelled, protocol::Parameters* parameters)
    : order_(std::move(order)),
      socket_(socket),
      parameters_(parameters),
      may_be_struck_(was_cancelled) {
  for (const std::string& name : order_.verify) {
    order_.statements.push_back("SELECT pg_catalog.current_setting('" + name + "')");
  }
  if (!order_.measure.empty()) {
    order_.statements.push_back(order_.measure);
  }
  assert(!order_.statements.empty());
}

std::optional<Running::End> Running::Begin() {
  if (order_.first_sent) {
    reader_.Begin(MayBeEmpty(order_.statements.front()));
    awaited_ = true;
  }
  return OnEvents();
}

std::optional<Running::End> Running::OnEvents() {
  if (!unsent_.empty()) {
    if (std::optional<End> end = Send(); end.has_value()) {
      return end;
    }
  }
  for (;;) {
    const AnswerReader::State state = reader_.Read(socket_);
    TakeParameters();
    if (state == AnswerReader::State::kFailed) {
      return Break(reader_.error());
    }
    if (state == AnswerReader::State::kMore || !unsent_.empty()) {
      return std::nullopt;
    }
    if (awaited_) {
      if (std::optional<End> end = TakeAnswer(); end.has_value()) {
        return end;
      }
    }
    // Nothing of an earlier answer is left: else it would pass for the answer to this statement.
    const std::string& text = order_.statements[statement_];
    reader_.Begin(MayBeEmpty(text));
    awaited_ = true;
    AppendMessage('Q', text + '\0', &unsent_);
    if (std::optional<End> end = Send(); end.has_value()) {
      return end;
    }
  }
}

// What is left of the statement under way, without waiting.
std::optional<Running::End> Running::Send() {
  const ssize_t sent = ::send(socket_, unsent_.data(), unsent_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  if (sent >= 0) {
    unsent_.erase(0, static_cast<std::size_t>(sent));
  } else if (errno != EAGAIN && errno != EINTR) {
    // What the datanode has said before it hung up is the better reason.
    const int error = errno;
    const bool said = reader_.Read(socket_) == AnswerReader::State::kFailed;
    return Break(said
                     ? reader_.error()
                     : "could not send to the datanode: " + std::generic_category().message(error));
  }
  return std::nullopt;
}

// The statement under way is answered, in step.
std::optional<Running::End> Running::TakeAnswer() {
  const bool in_transaction = reader_.transaction() != 'I';
  if (!reader_.error().empty()) {
    const bool late_cancel =
        std::exchange(may_be_struck_, false) && reader_.sqlstate() == sqlstate::kQueryCanceled;
    if (order_.first_sent && statement_ == 0) {
      return Finish(Status(sqlstate::kConnectionLost, reader_.error()));
    }
    if (late_cancel) {
      return std::nullopt;  // once more
    }
    if (Measuring() && !in_transaction) {
      return Finish(Status::Ok());  // it may fail
    }
    return Finish(
        Status(reader_.sqlstate().empty() ? sqlstate::kConnectionLost : reader_.sqlstate().c_str(),
               reader_.error()));
  }
  if (Measuring()) {
    measured_ = reader_.value();
  } else if (statement_ >= FirstVerify() && reader_.value().has_value()) {
    SetParameter(order_.verify[statement_ - FirstVerify()], *reader_.value(), parameters_);
  }
  if (++statement_ < order_.statements.size()) {
    return std::nullopt;
  }
  return Finish(in_transaction
                    ? Status(sqlstate::kConnectionLost, "it was left inside a transaction")
                    : Status::Ok());
}

std::size_t Running::FirstVerify() const {
  return order_.statements.size() - order_.verify.size() - (order_.measure.empty() ? 0 : 1);
}

// Is the statement under way the last one, whose value is wanted?
bool Running::Measuring() const {
  return !order_.measure.empty() && statement_ + 1 == order_.statements.size();
}

void Running::TakeParameters() {
  for (const auto& [name, value] : reader_.parameters()) {
    SetParameter(name, value, parameters_);
  }
  reader_.ForgetParameters();
}

std::uint32_t Running::events() const {
  return EPOLLIN | EPOLLRDHUP | (unsent_.empty() ? 0u : static_cast<std::uint32_t>(EPOLLOUT));
}

Running::End Running::OnDeadline() {
  timed_out_ = true;
  return Finish(Status(sqlstate::kConnectionLost, "pooler.pooler_dn_set_timeout (" +
                                                      std::to_string(order_.timeout.count()) +
                                                      " s) is over without an answer"));
}

Running::End Running::GiveUp(const std::string& reason) {
  return Finish(Status(sqlstate::kConnectionLost, reason));
}

Running::End Running::Break(const std::string& reason) {
  return Finish(Status(sqlstate::kConnectionLost, reason), true);
}

Running::End Running::Finish(Status status, bool broken) {
  const bool in_transaction = reader_.transaction() != 'I';
  if (!status.ok() && in_transaction) {
    status = Status(sqlstate::kConnectionLost, status.message());  // not fit to be lent
  }
  return {.done = {.slot = order_.slot,
                   .kind = order_.kind,
                   .status = std::move(status),
                   .parameters = {},
                   .value = std::move(measured_),
                   .timed_out = timed_out_,
                   .in_transaction = in_transaction && !broken},
          .broken = broken};
}

}  // namespace polarx
