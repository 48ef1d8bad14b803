// Texts that come from other servers become texts of the database; in a backend, on its only
// thread.
#include <algorithm>
#include <climits>
#include <cstddef>

#include "pg/base/text.h"
#include "pg/prelude.h"

namespace polarx {
namespace {

constexpr size_t kLongestContext = 1024;

}  // namespace

char* MakeValid(char* text, bool foreign) noexcept {
  char* const end = text + strlen(text);
  for (char* at = text; at < end; ++at) {
    if (!foreign) {
      const auto left = static_cast<int>(std::min<ptrdiff_t>(end - at, INT_MAX));
      at += pg_encoding_verifymbstr(GetDatabaseEncoding(), at, left);
    }
    if (at < end && (!foreign || IS_HIGHBIT_SET(*at))) {
      *at = '?';
    }
  }
  return text;
}

int ContextLength(const char* text) {
  const size_t length = strnlen(text, kLongestContext + 1);
  return length <= kLongestContext
             ? static_cast<int>(length)
             : pg_mbcliplen(text, static_cast<int>(length), static_cast<int>(kLongestContext));
}

void AddStatementContext(const char* node_name, const char* sql) {
  const int length = ContextLength(sql);
  errcontext("statement on datanode \"%s\": %.*s%s", node_name, length, sql,
             sql[length] != '\0' ? "..." : "");
}

}  // namespace polarx
