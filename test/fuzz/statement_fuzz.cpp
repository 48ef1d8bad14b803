// Fuzz target: texts as statements. What does not matter to the server's scanner changes no answer.
#include "fuzz.h"
#include "core/statement.h"

using polarx::ClassifyStatement;
using polarx::StatementKind;
using polarx::fuzz::Require;

namespace {

struct Opening {
  const char* text;
  StatementKind kind;
};

constexpr Opening kOpenings[] = {
    {"select ", StatementKind::kPlain},
    {"With(", StatementKind::kPlain},
    {"ROLLBACK/", StatementKind::kTransactionControl},
    {"prepare/**/transaction;", StatementKind::kTransactionControl},
    {"copy\n", StatementKind::kCopy},
    {"prepare transaction_", StatementKind::kOther},
    {"selec\xc3\xa9", StatementKind::kOther},
    {"/*/**/ begin; ", StatementKind::kOther},
};

std::string SwapCase(std::string text) {
  for (char& c : text) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    c = letter ? static_cast<char>(c ^ 0x20) : c;
  }
  return text;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string sql(polarx::fuzz::Text(data, size));
  const StatementKind kind = ClassifyStatement(sql);
  Require(ClassifyStatement(SwapCase(sql)) == kind, "letter case does not matter");
  for (const char* before : {" ", "\t\r\n\f", "--x*/\n", "/**/", "/*/*-- */'*/", ";(;"}) {
    Require(ClassifyStatement(before + sql) == kind, "what is skipped does not matter");
  }
  for (const char* after : {" ", " x", "\n;", " 'begin'"}) {
    Require(ClassifyStatement(sql + after) == kind, "what follows does not matter");
  }
  if (sql.find("*/") == std::string::npos) {
    for (const Opening& opening : kOpenings) {
      Require(ClassifyStatement(opening.text + sql) == opening.kind, "the first words decide");
    }
  }
  return 0;
}
