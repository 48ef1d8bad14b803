// The question who is in whose way on a datanode, and its answer; pure functions, any thread.
#include "engine/blocking_query.h"

#include <charconv>
#include <optional>

namespace polarx {
namespace {

// What stands behind it is cut off, for an answer to the pooler may have 1 MB.
constexpr const char* kMostCharacters = "500000";

std::string ArrayOf(const std::vector<int>& numbers) {
  std::string text = "'{";
  for (const int number : numbers) {
    text += (text.size() > 2 ? "," : "") + std::to_string(number);
  }
  return text + "}'::pg_catalog.int4[]";
}

// Takes what stands in front of the mark, and the mark; unset: there is no mark.
std::optional<std::string_view> TakeUpTo(char mark, std::string_view* text) {
  const std::size_t end = text->find(mark);
  if (end == std::string_view::npos) {
    return std::nullopt;
  }
  const std::string_view taken = text->substr(0, end);
  text->remove_prefix(end + 1);
  return taken;
}

// 0: it is no process.
int ProcessOf(std::string_view text) {
  int number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size() && number > 0 ? number : 0;
}

// "waiter:holder,holder"
void ParseWait(std::string_view text, BlockingAnswer* answer) {
  const int waiter = ProcessOf(TakeUpTo(':', &text).value_or(""));
  while (waiter != 0 && !text.empty()) {
    const std::optional<std::string_view> before = TakeUpTo(',', &text);
    const int holder = ProcessOf(before.value_or(text));
    if (holder != 0) {  // a prepared transaction has none
      answer->blocked.emplace_back(waiter, holder);
    }
    if (!before.has_value()) {
      return;
    }
  }
}

}  // namespace

// Names are qualified, operators too: what stands first in a remote role's search_path must not be
// able to lie about others.
std::string BlockingStatement(const std::vector<int>& waiting, const std::vector<int>& lent) {
  return "WITH w AS MATERIALIZED (SELECT s.p, s.b FROM (SELECT p, pg_catalog.pg_blocking_pids(p) "
         "AS b"
         " FROM pg_catalog.unnest(" +
         ArrayOf(waiting) +
         ") AS p) s WHERE pg_catalog.cardinality(s.b) OPERATOR(pg_catalog.>) 0)"
         " SELECT pg_catalog.left(pg_catalog.concat("
         "(SELECT pg_catalog.string_agg(pg_catalog.concat(w.p, ':',"
         " pg_catalog.array_to_string(w.b, ','), ';'), '') FROM w), '|',"
         " (SELECT pg_catalog.string_agg(pg_catalog.concat(a.pid, ';'), '')"
         " FROM (SELECT DISTINCT pg_catalog.unnest(w.b) AS p FROM w) h,"
         " LATERAL pg_catalog.pg_stat_get_activity(h.p) a"
         " WHERE h.p OPERATOR(pg_catalog.<>) ALL (" +
         ArrayOf(lent) +
         ") AND a.client_port IS NOT NULL AND"
         " COALESCE(pg_catalog.host(a.client_addr), '') OPERATOR(pg_catalog.=)"
         " COALESCE(pg_catalog.host(pg_catalog.inet_client_addr()), ''))), " +
         kMostCharacters + ")";
}

BlockingAnswer ParseBlockingAnswer(std::string_view text) {
  BlockingAnswer answer;
  std::string_view waits = text.substr(0, text.find('|'));
  text.remove_prefix(std::min(text.size(), waits.size() + 1));
  while (const auto wait = TakeUpTo(';', &waits)) {
    ParseWait(*wait, &answer);
  }
  while (const auto process = TakeUpTo(';', &text)) {
    if (const int number = ProcessOf(*process); number != 0) {
      answer.neighbours.push_back(number);
    }
  }
  return answer;
}

}  // namespace polarx
