// A Status becomes plain data, and that an ereport; in a backend, on its only thread.
#include <string_view>

#include "pg/base/errors.h"
#include "pg/base/text.h"
#include "pg/prelude.h"

namespace polarx {
namespace {

// Copies what fits, whole characters only, valid in the database's encoding.
template <size_t size>
void Keep(std::string_view text, char (&buffer)[size]) {
  size_t length = text.size();
  if (length >= size) {
    length = static_cast<size_t>(
        pg_mbcliplen(text.data(), static_cast<int>(length), static_cast<int>(size) - 1));
  }
  memcpy(buffer, text.data(), length);
  buffer[length] = '\0';
  (void)MakeValid(buffer);  // it may be a datanode's
}

}  // namespace

void KeepError(const Status& status, ErrorText* error) noexcept {
  Keep(status.sqlstate(), error->sqlstate);
  Keep(status.message(), error->message);
  Keep(status.detail(), error->detail);
  Keep(status.hint(), error->hint);
}

void KeepPlainError(const char* sqlstate, const char* message, ErrorText* error) noexcept {
  Keep(sqlstate, error->sqlstate);
  Keep(message, error->message);
  error->detail[0] = '\0';
  error->hint[0] = '\0';
}

void KeepOutOfMemory(ErrorText* error) noexcept { KeepPlainError("53200", "out of memory", error); }

void ThrowError(const ErrorText* error) {
  const char* code = error->sqlstate;
  ereport(ERROR, (errcode(MAKE_SQLSTATE(code[0], code[1], code[2], code[3], code[4])),
                  errmsg_internal("%s", error->message),
                  error->detail[0] != '\0' ? errdetail_internal("%s", error->detail) : 0,
                  error->hint[0] != '\0' ? errhint("%s", error->hint) : 0));
  pg_unreachable();
}

}  // namespace polarx
