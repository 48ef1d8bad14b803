// The first words of a statement are read here, the way the server's scanner would read them; in
// backends.
#include "core/statement.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <iterator>

namespace polarx {

namespace {

using std::string_view;

bool IsSpace(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v';
}

bool IsLetter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

// Bytes above 127 are letters to the server, in every encoding.
bool IsWordByte(char c) {
  return IsLetter(c) || (c >= '0' && c <= '9') || c == '_' || c == '$' ||
         static_cast<unsigned char>(c) >= 0x80;
}

char Lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

bool SameWord(string_view word, string_view lower_case) {
  return std::equal(word.begin(), word.end(), lower_case.begin(), lower_case.end(),
                    [](char a, char b) { return Lower(a) == b; });
}

// What follows the block comment at the head of `sql`; nothing if it never ends.
string_view AfterBlockComment(string_view sql) {
  std::size_t depth = 0;
  for (std::size_t i = 0; i + 1 < sql.size(); ++i) {
    const string_view two = sql.substr(i, 2);
    if (two == "/*") {
      ++depth;
      ++i;
    } else if (two == "*/") {
      ++i;
      if (--depth == 0) {
        return sql.substr(i + 1);
      }
    }
  }
  return {};
}

// Skips white space and comments, and bytes of `also`.
string_view Skip(string_view sql, string_view also) {
  while (!sql.empty()) {
    if (IsSpace(sql.front()) || also.find(sql.front()) != string_view::npos) {
      sql.remove_prefix(1);
    } else if (sql.starts_with("--")) {
      sql.remove_prefix(std::min(sql.find_first_of("\r\n"), sql.size()));
    } else if (sql.starts_with("/*")) {
      sql = AfterBlockComment(sql);
    } else {
      break;
    }
  }
  return sql;
}

string_view FirstWord(string_view sql) {
  const auto end = std::find_if_not(sql.begin(), sql.end(), IsWordByte);
  return sql.substr(0, static_cast<std::size_t>(std::distance(sql.begin(), end)));
}

struct Keyword {
  string_view word;
  StatementKind kind;
};

constexpr std::array kKeywords = {
    Keyword{"select", StatementKind::kPlain},
    Keyword{"insert", StatementKind::kPlain},
    Keyword{"update", StatementKind::kPlain},
    Keyword{"delete", StatementKind::kPlain},
    Keyword{"merge", StatementKind::kPlain},
    Keyword{"values", StatementKind::kPlain},
    Keyword{"table", StatementKind::kPlain},
    Keyword{"with", StatementKind::kPlain},
    Keyword{"begin", StatementKind::kTransactionControl},
    Keyword{"start", StatementKind::kTransactionControl},
    Keyword{"commit", StatementKind::kTransactionControl},
    Keyword{"end", StatementKind::kTransactionControl},
    Keyword{"rollback", StatementKind::kTransactionControl},
    Keyword{"abort", StatementKind::kTransactionControl},
    Keyword{"savepoint", StatementKind::kTransactionControl},
    Keyword{"release", StatementKind::kTransactionControl},
    Keyword{"copy", StatementKind::kCopy},
};

}  // namespace

StatementKind ClassifyStatement(string_view sql) {
  sql = Skip(sql, "(;");
  const string_view word = FirstWord(sql);
  for (const Keyword& keyword : kKeywords) {
    if (SameWord(word, keyword.word)) {
      return keyword.kind;
    }
  }
  if (SameWord(word, "prepare") &&
      SameWord(FirstWord(Skip(sql.substr(word.size()), "")), "transaction")) {
    return StatementKind::kTransactionControl;
  }
  return StatementKind::kOther;
}

}  // namespace polarx
