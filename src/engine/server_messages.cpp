// What a server says, as bytes; on any thread.
#include "engine/server_messages.h"

#include <arpa/inet.h>

#include <cstring>

namespace polarx {
namespace {

void AppendInt32(std::uint32_t value, std::string* out) {
  for (int shift = 24; shift >= 0; shift -= 8) {
    out->push_back(static_cast<char>(value >> shift));
  }
}

// Of the first four of these bytes.
std::uint32_t ReadInt32(std::string_view bytes) {
  std::uint32_t value;
  std::memcpy(&value, bytes.data(), sizeof(value));
  return ntohl(value);
}

void AppendHead(char type, std::size_t body_size, std::string* out) {
  out->push_back(type);
  AppendInt32(static_cast<std::uint32_t>(body_size + 4), out);
}

}  // namespace

void AppendMessage(char type, std::string_view body, std::string* out) {
  AppendHead(type, body.size(), out);
  out->append(body);
}

void AppendAuthenticationOk(std::string* out) {
  AppendHead('R', 4, out);
  AppendInt32(0, out);
}

void AppendParameter(std::string_view name, std::string_view value, std::string* out) {
  AppendHead('S', name.size() + value.size() + 2, out);
  out->append(name).push_back('\0');
  out->append(value).push_back('\0');
}

void AppendKeyData(std::int32_t backend_pid, std::string* out) {
  AppendHead('K', 8, out);
  AppendInt32(static_cast<std::uint32_t>(backend_pid), out);
  AppendInt32(0, out);
}

void AppendReady(std::string* out) { AppendMessage('Z', "I", out); }

bool TakeFirstColumn(std::string_view body, std::optional<std::string_view>* column) {
  constexpr std::size_t kCount = 2;
  constexpr std::size_t kLength = 4;
  if (body.size() < kCount || (body[0] == '\0' && body[1] == '\0')) {
    return true;
  }
  body.remove_prefix(kCount);
  if (body.size() < kLength) {
    return false;
  }
  const std::uint32_t length = ReadInt32(body);
  body.remove_prefix(kLength);
  if (length == UINT32_MAX) {
    return true;  // null
  }
  if (length > body.size()) {
    return false;
  }
  *column = body.substr(0, length);
  return true;
}

std::size_t MessageSize(std::string_view bytes) {
  if (bytes.size() < kMessageHead) {
    return 0;
  }
  const std::uint32_t length = ReadInt32(bytes.substr(1));
  return length < sizeof(length) ? kMessageHead - 1 : std::size_t{length} + 1;
}

}  // namespace polarx
