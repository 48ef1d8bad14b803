// Fuzz target: texts of libpq about a failed connect, which a datanode writes in part.
#include <algorithm>

#include "fuzz.h"
#include "core/protocol.h"
#include "core/stat_line.h"
#include "engine/connect_error.h"

namespace polarx {
namespace {

using fuzz::Require;

// "…:  28P01: …", the end empty or not
bool HoldsSqlstate(std::string_view text) {
  for (std::size_t at = 0; at + 10 <= text.size(); ++at) {
    if (text.substr(at, 3) == ":  " && text.substr(at + 8, 2) == ": " &&
        fuzz::IsSqlstate(text.substr(at + 3, 5))) {
      return true;
    }
  }
  return false;
}

void CheckOneLine(std::string_view text) {
  const std::string line = OneLine(text);
  Require(line.find('\n') == std::string::npos, "one line");
  Require(!HoldsSqlstate(line), "no SQLSTATE is left");
  Require(line.size() <= 2 * text.size(), "nothing is added but separators");
}

void CheckStatus(std::string_view node, std::string_view text) {
  const Status status = ConnectErrorStatus(node, text);
  Require(fuzz::IsSqlstate(status.sqlstate()), "a failure has an SQLSTATE");
  const bool no_password = text.find("no password supplied") != std::string_view::npos;
  const bool no_descriptor = text.find("Too many open files") != std::string_view::npos;
  Require(HoldsSqlstate(text) || no_password || no_descriptor ||
              status.sqlstate() == sqlstate::kConnectionFailed,
          "08001 where the datanode said none");
  Require(status.message() ==
              "could not connect to datanode \"" + std::string(node) + "\": " + OneLine(text),
          "the message names node and reason");
  Require(!IsPoolLimit(text) || status.sqlstate() == sqlstate::kPoolFull, "a pool limit is 53300");
  std::string frame;
  protocol::Encode(protocol::Reply(protocol::Failed{1, status}), &frame);
  Require(protocol::DecodeReply(frame).ok(), "the session can read what the pooler writes");
}

void CheckStatValue(std::string_view text) {
  const std::string value = QuoteStatValue(text);
  Require(!value.empty(), "no value is empty");
  const bool quoted = value.front() == '"';
  Require(quoted || value == text, "a bare value is the text itself");
  for (std::size_t i = 0; i < value.size(); ++i) {
    const auto c = static_cast<unsigned char>(value[i]);
    Require(c >= 0x20 && c != 0x7f, "no control character in a stat line");
    const bool inside = quoted && i > 0 && i + 1 < value.size();
    if (inside && c == '\\') {
      ++i;
      Require(i + 1 < value.size(), "an escape is whole");
    } else {
      Require(!inside || c != '"', "no quote ends a value early");
    }
  }
}

}  // namespace
}  // namespace polarx

// The first line is the node's name; libpq's texts and names of nodes hold no zero byte.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string text(polarx::fuzz::Text(data, size));
  std::erase(text, '\0');
  const std::size_t end = std::min(text.find('\n'), text.size());
  const std::string_view node = std::string_view(text).substr(0, end);
  polarx::CheckOneLine(text);
  polarx::CheckStatus(node, std::string_view(text).substr(end));
  polarx::CheckStatValue(text);
  return 0;
}
