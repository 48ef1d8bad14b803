// Texts that come from other servers become texts of the database. In a backend, on its only
// thread.
#pragma once

#include <cstddef>

namespace polarx {

// Replaces in place each byte that is not valid in the database's encoding by a question mark; with
// `foreign`, for a text in another encoding, each that is not ASCII. Returns `text`. No ereport.
char* MakeValid(char* text, bool foreign = false) noexcept;

// Adds to the error being reported the context `statement on datanode "…": …`, of a long statement
// its first kilobyte.
void AddStatementContext(const char* node_name, const char* sql);

// How much of a text may stand in a context, in bytes: at most a kilobyte, whole characters.
int ContextLength(const char* text);

}  // namespace polarx
