// Reads the answer to a statement that the pooler worker, or a session on its behalf, has sent; on
// worker threads.
#include "engine/answer_reader.h"

#include <sys/socket.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cstdint>

#include "core/status.h"
#include "engine/adopt.h"
#include "engine/connect_error.h"
#include "engine/server_messages.h"

namespace polarx {
namespace {

constexpr int kReadsACall = 16;
constexpr std::size_t kReadSize = 4096;
constexpr std::size_t kLongestMessage = std::size_t{1} << 30;  // that PostgreSQL sends

constexpr const char* kMalformed = "datanode sent a malformed answer";
constexpr const char* kTooMuch = "datanode sent more than 1 MB to the pooler";

bool WouldBlock() { return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR; }

// The field of an error's body; "": it has none.
std::string FieldOf(std::string_view body, char field) {
  while (!body.empty() && body.front() != '\0') {
    const std::size_t end = body.find('\0');
    if (body.front() == field) {
      return std::string(body.substr(1, end == std::string_view::npos ? end : end - 1));
    }
    if (end == std::string_view::npos) {
      break;
    }
    body.remove_prefix(end + 1);
  }
  return {};
}

}  // namespace

void AnswerReader::Begin(bool may_be_empty) {
  assert(ended_ && unread_.empty());
  may_be_empty_ = may_be_empty;
  answered_ = ended_ = false;
  rows_ = 0;
  value_.reset();
  error_.clear();
  sqlstate_.clear();
}

AnswerReader::State AnswerReader::Read(int socket) {
  char bytes[kReadSize];
  for (int reads = 0; reads < kReadsACall; ++reads) {
    const ssize_t got = ::recv(socket, bytes, sizeof(bytes), MSG_DONTWAIT);
    if (got < 0 && WouldBlock()) {
      return Result();
    }
    if (got <= 0) {
      error_ = error_.empty() ? "datanode closed the connection" : error_;
      return State::kFailed;
    }
    bytes_ += static_cast<std::size_t>(got);
    if (bytes_ > kMostBytes) {
      error_ = kTooMuch;
      return State::kFailed;
    }
    unread_.append(bytes, static_cast<std::size_t>(got));
    if (Take() == State::kFailed) {
      return State::kFailed;
    }
  }
  return State::kMore;
}

AnswerReader::State AnswerReader::Result() const {
  if (!ended_ || !unread_.empty()) {
    return State::kMore;
  }
  return error_.empty() ? State::kDone : State::kRefused;
}

// The whole messages that have come.
AnswerReader::State AnswerReader::Take() {
  std::string_view rest(unread_);
  std::size_t size = 0;
  while ((size = MessageSize(rest)) != 0) {
    if (size < kMessageHead || size > kMostBytes) {
      error_ = size < kMessageHead || size > kLongestMessage ? kMalformed : kTooMuch;
      return State::kFailed;
    }
    if (size > rest.size()) {
      break;
    }
    if (!TakeMessage(rest.front(), rest.substr(kMessageHead, size - kMessageHead))) {
      return State::kFailed;
    }
    rest.remove_prefix(size);
  }
  unread_.erase(0, unread_.size() - rest.size());
  return Result();
}

// False: the connection is of no use any more.
bool AnswerReader::TakeMessage(char type, std::string_view body) {
  switch (type) {
    case 'S':
      TakeParameter(body);
      return true;
    case 'N':
    case 'A':
      return true;
    case 'E':
      TakeError(body);
      return !ended_;  // its last word, if nobody asked; else the end of the answer is to come
    default:
      break;
  }
  if (ended_) {
    error_ = "datanode sent more than the answer";
    return false;
  }
  switch (type) {
    case 'Z':
      return TakeEnd(body);
    case 'D':
      answered_ = true;
      return TakeRow(body);
    case 'C':
    case 'T':
      answered_ = true;
      return true;
    case 'I':
      answered_ = answered_ || may_be_empty_;
      return true;
    case 'G':
    case 'H':
    case 'W':
      error_ = "a statement of the pooler started a COPY";
      return false;
    default:
      error_ = "unexpected answer";
      return false;
  }
}

bool AnswerReader::TakeEnd(std::string_view body) {
  ended_ = true;
  if (error_.empty() && !answered_) {
    error_ = "datanode gave no answer, but is ready for the next statement";
    return false;
  }
  if (body != "I" && body != "T" && body != "E") {
    error_ = kMalformed;
    return false;
  }
  transaction_ = body.front();
  return true;
}

void AnswerReader::TakeError(std::string_view body) {
  error_ = OneLine(FieldOf(body, 'M'));
  error_ = error_.empty() ? "unexpected answer" : error_;
  const std::string code = FieldOf(body, 'C');
  sqlstate_ = IsSqlstate(code) ? code : "";
}

void AnswerReader::TakeParameter(std::string_view body) {
  const std::size_t end = body.find('\0');
  if (end == std::string_view::npos) {
    return;
  }
  const std::string_view name = body.substr(0, end);
  const std::string_view rest = body.substr(end + 1);
  // Others reach nobody, and may be without end.
  if (std::find(std::begin(kReportedParameters), std::end(kReportedParameters), name) ==
      std::end(kReportedParameters)) {
    return;
  }
  std::erase_if(parameters_, [&](const auto& entry) { return entry.first == name; });
  parameters_.emplace_back(name, rest.substr(0, rest.find('\0')));
}

// False: the row is malformed.
bool AnswerReader::TakeRow(std::string_view body) {
  value_.reset();
  if (++rows_ > 1) {
    return true;
  }
  std::optional<std::string_view> column;
  if (!TakeFirstColumn(body, &column)) {
    error_ = kMalformed;
    return false;
  }
  if (column.has_value()) {
    value_ = *column;
  }
  return true;
}

}  // namespace polarx
