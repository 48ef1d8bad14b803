// A reset that a session has sent, and its answer, byte by byte; on the thread that has the
// connection.
#include "engine/sent_reset.h"

#include <arpa/inet.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstdint>
#include <cstring>

#include "engine/connect_error.h"
#include "engine/server_messages.h"

namespace polarx {
namespace {

constexpr std::size_t kLongestPlain = 1024;
constexpr std::size_t kLongestMessage = std::size_t{1} << 20;

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

bool WouldBlock() { return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR; }

}  // namespace

bool SendReset(int socket, std::string_view text) {
  char message[kMessageHead + kLongestReset + 1];
  if (text.size() > kLongestReset) {
    return false;
  }
  const std::size_t size = kMessageHead + text.size() + 1;
  const std::uint32_t length = htonl(static_cast<std::uint32_t>(size - 1));
  message[0] = 'Q';
  std::memcpy(message + 1, &length, sizeof(length));
  std::memcpy(message + kMessageHead, text.data(), text.size());
  message[size - 1] = '\0';
  return ::send(socket, message, size, MSG_NOSIGNAL | MSG_DONTWAIT) == static_cast<ssize_t>(size);
}

PlainAnswer LookForPlainAnswer(int socket) {
  char bytes[kLongestPlain];
  const ssize_t got = ::recv(socket, bytes, sizeof(bytes), MSG_PEEK | MSG_DONTWAIT);
  if (got <= 0) {
    return {.come = got == 0 || !WouldBlock()};
  }
  PlainAnswer answer{.come = true};
  bool answered = false;
  std::string_view rest(bytes, static_cast<std::size_t>(got));
  for (std::size_t size = 0; (size = MessageSize(rest)) >= kMessageHead && size <= rest.size();) {
    const char type = rest.front();
    if (type == 'Z' && answered && size == kMessageHead + 1 && rest[kMessageHead] == 'I') {
      answer.size += size;
      answer.alone = size == rest.size();
      return answer;
    }
    if (type != 'C' && type != 'I' && type != 'T' && type != 'D') {
      break;
    }
    answered = true;
    answer.size += size;
    rest.remove_prefix(size);
  }
  answer.size = 0;
  return answer;
}

bool TakePlainAnswer(int socket, std::size_t size) {
  char bytes[kLongestPlain];
  return ::recv(socket, bytes, size, MSG_DONTWAIT) == static_cast<ssize_t>(size);
}

AnswerReader::State AnswerReader::Read(int socket) {
  char bytes[4096];
  for (;;) {
    const ssize_t got = ::recv(socket, bytes, sizeof(bytes), MSG_DONTWAIT);
    if (got < 0 && WouldBlock()) {
      return ended_ && unread_.empty() ? State::kDone : State::kMore;
    }
    if (got <= 0) {
      error_ = error_.empty() ? "datanode closed the connection" : error_;
      return State::kFailed;
    }
    unread_.append(bytes, static_cast<std::size_t>(got));
    const State state = Take();
    if (state != State::kMore) {
      return state;
    }
  }
}

// The whole messages that have come.
AnswerReader::State AnswerReader::Take() {
  std::string_view rest(unread_);
  std::size_t size = 0;
  while ((size = MessageSize(rest)) != 0) {
    if (size < kMessageHead || size > kLongestMessage) {
      error_ = "datanode sent a malformed answer";
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
  return ended_ && unread_.empty() ? State::kDone : State::kMore;
}

// False: the answer is none that will do.
bool AnswerReader::TakeMessage(char type, std::string_view body) {
  if (type == 'S') {
    parameters_.emplace_back(body.substr(0, body.find('\0')));
    return true;
  }
  if (type == 'N' || type == 'A') {
    return true;
  }
  if (type == 'E') {
    error_ = OneLine(FieldOf(body, 'M'));
    error_ = error_.empty() ? "unexpected answer" : error_;
    return !ended_;  // its last word, if nobody asked; else the end of the answer is to come
  }
  if (ended_) {
    error_ = "datanode sent more than the answer";
    return false;
  }
  switch (type) {
    case 'Z':
      return TakeEnd(body);
    case 'C':
    case 'T':
    case 'D':
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
  } else if (error_.empty() && body != "I") {
    error_ = "it was left inside a transaction";
  }
  return error_.empty();
}

}  // namespace polarx
