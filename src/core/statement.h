// What kind of statement a text is, by its first words; pure functions, used by backends.
#pragma once

#include <string_view>

namespace polarx {

enum class StatementKind {
  kPlain,  // SELECT, INSERT, UPDATE, DELETE, MERGE, VALUES, TABLE, WITH
  // BEGIN, START, COMMIT, END, ROLLBACK, ABORT, SAVEPOINT, RELEASE, PREPARE TRANSACTION
  kTransactionControl,
  kCopy,
  kOther,
};

// Skips white space, `--` and nested `/* */` comments, leading parentheses and semicolons; letter
// case does not matter. The extended protocol admits one statement a text, so the first decides.
StatementKind ClassifyStatement(std::string_view sql);

}  // namespace polarx
