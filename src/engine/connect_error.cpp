// From libpq's words about a failed connect to a Status; pure functions over text.
#include "engine/connect_error.h"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <system_error>
#include <utility>
#include <vector>

namespace polarx {
namespace {

// The datanode asks for a password and the mapping has none: libpq's own words, never translated.
constexpr std::string_view kNoPassword = "fe_sendauth: no password supplied";
constexpr std::string_view kInvalidPassword = "28P01";

// Says libpq that this process, or this machine, has no descriptor left? It says so in the words of
// the system, in whatever language.
bool LacksDescriptor(std::string_view text) {
  for (const int error : {EMFILE, ENFILE}) {
    if (text.find(std::generic_category().message(error)) != std::string_view::npos) {
      return true;
    }
  }
  return false;
}

bool IsStateCharacter(char c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z'); }

// Position of the five characters in "FATAL:  28P01: …", npos if there are none. The severity may
// be translated, the punctuation is not.
std::size_t FindSqlstate(std::string_view text) {
  for (std::size_t at = text.find(":  "); at != std::string_view::npos;
       at = text.find(":  ", at + 1)) {
    const std::string_view rest = text.substr(at + 3);
    if (rest.size() > 6 && rest.substr(5, 2) == ": ") {
      bool all = true;
      for (char c : rest.substr(0, 5)) {
        all = all && IsStateCharacter(c);
      }
      if (all) {
        return at + 3;
      }
    }
  }
  return std::string_view::npos;
}

// "LOCATION:  auth_failed, auth.c:338" in whatever language.
bool IsLocation(std::string_view line) {
  std::size_t end = line.size();
  while (end > 0 && std::isdigit(static_cast<unsigned char>(line[end - 1]))) {
    --end;
  }
  return end < line.size() && end > 3 && line.substr(end - 3, 3) == ".c:";
}

std::vector<std::string_view> Lines(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    lines.push_back(text.substr(0, end));
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  }
  return lines;
}

}  // namespace

std::string OneLine(std::string_view text) {
  std::string result;
  std::vector<std::string_view> said;
  for (std::string_view line : Lines(text)) {
    // libpq's advice to a person at a terminal begins with a tab. Where it has tried once more, as
    // it does without application_name, it gives the reason twice.
    if (line.empty() || line.front() == '\t' || IsLocation(line) ||
        std::find(said.begin(), said.end(), line) != said.end()) {
      continue;
    }
    said.push_back(line);
    result += result.empty() ? "" : "; ";
    result += line;
  }
  for (std::size_t at = FindSqlstate(result); at != std::string::npos; at = FindSqlstate(result)) {
    result.erase(at, 7);
  }
  return result;
}

bool IsPoolLimit(std::string_view text) {
  const std::size_t at = FindSqlstate(text);
  return at != std::string_view::npos && text.substr(at, 5) == sqlstate::kPoolFull &&
         (text.find("InitializeSessionUserId") != std::string_view::npos ||
          text.find("CheckMyDatabase") != std::string_view::npos);
}

Status ConnectErrorStatus(std::string_view node_name, std::string_view text) {
  const std::size_t at = FindSqlstate(text);
  std::string_view state = sqlstate::kConnectionFailed;
  std::string hint;
  if (at != std::string_view::npos) {
    state = text.substr(at, 5);
  } else if (text.find(kNoPassword) != std::string_view::npos) {
    state = kInvalidPassword;
  } else if (LacksDescriptor(text)) {
    state = sqlstate::kOutOfDescriptors;
    hint = "Raise the server's limit of open files, or lower pooler.max_pool_size.";
  }
  return Status(
      state, "could not connect to datanode \"" + std::string(node_name) + "\": " + OneLine(text),
      "", std::move(hint));
}

}  // namespace polarx
