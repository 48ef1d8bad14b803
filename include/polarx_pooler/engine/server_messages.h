// What a server says in a startup, as bytes for libpq; pure functions, called in backends.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace polarx {

// Each appends one message of the frontend/backend protocol, version 3.
void AppendMessage(char type, std::string_view body, std::string* out);
void AppendAuthenticationOk(std::string* out);
void AppendParameter(std::string_view name, std::string_view value, std::string* out);
// The cancel key in it is 0: the true one stays with the pooler.
void AppendKeyData(std::int32_t backend_pid, std::string* out);
void AppendReady(std::string* out);  // outside a transaction

}  // namespace polarx
