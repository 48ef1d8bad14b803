// What a server says, as bytes: to libpq in a startup, and where it is read without libpq. Pure
// functions, on any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
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

// Type and length of a message, which its body follows.
inline constexpr std::size_t kMessageHead = 5;
// Size of the message at the front, head included, of which not all need have come; 0: its head has
// not come; less than kMessageHead: it is none.
std::size_t MessageSize(std::string_view bytes);
// Takes the first column out of the body of a row; it stays empty if that is null or there is none.
// False: the row is malformed.
bool TakeFirstColumn(std::string_view body, std::optional<std::string_view>* column);

}  // namespace polarx
