// A reset that a session sends, and its plain answer, byte by byte; in backends.
#include "engine/sent_reset.h"

#include <arpa/inet.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <optional>

#include "engine/server_messages.h"

namespace polarx {
namespace {

constexpr std::size_t kLongestPlain = 1024;

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
    std::optional<std::string_view> column;
    if (type == 'D' && !TakeFirstColumn(rest.substr(kMessageHead, size - kMessageHead), &column)) {
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

}  // namespace polarx
