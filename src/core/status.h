// How a call tells that it failed, and why, in the terms of a PostgreSQL error; on any thread.
#pragma once

#include <cassert>
#include <string>
#include <string_view>
#include <utility>

namespace polarx {

// SQLSTATEs that the pooler itself raises.
namespace sqlstate {
inline constexpr const char* kConnectionFailed = "08001";
inline constexpr const char* kConnectionLost = "08006";
inline constexpr const char* kProtocolViolation = "08P01";
inline constexpr const char* kFeatureNotSupported = "0A000";
inline constexpr const char* kInvalidParameter = "22023";
inline constexpr const char* kInvalidAuthorization = "28000";
inline constexpr const char* kPasswordRequired = "2F003";
inline constexpr const char* kInsufficientPrivilege = "42501";
inline constexpr const char* kUndefinedObject = "42704";
inline constexpr const char* kOutOfDescriptors = "53000";
inline constexpr const char* kPoolFull = "53300";
inline constexpr const char* kQueryCanceled = "57014";
inline constexpr const char* kCannotConnectNow = "57P03";
inline constexpr const char* kInternalError = "XX000";
}  // namespace sqlstate

// Five digits or capital letters?
inline bool IsSqlstate(std::string_view text) {
  return text.size() == 5 &&
         text.find_first_not_of("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") == std::string_view::npos;
}

// A success, or an SQLSTATE with message, detail and hint. A value: copy and move freely.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(std::string_view sqlstate, std::string message, std::string detail = {},
         std::string hint = {})
      : sqlstate_(sqlstate),
        message_(std::move(message)),
        detail_(std::move(detail)),
        hint_(std::move(hint)) {
    assert(sqlstate_.size() == 5);
  }
  static Status Ok() { return {}; }

  bool ok() const { return sqlstate_.empty(); }
  const std::string& sqlstate() const { return sqlstate_; }  // five characters, "" when ok
  const std::string& message() const { return message_; }
  const std::string& detail() const { return detail_; }
  const std::string& hint() const { return hint_; }

 private:
  std::string sqlstate_;
  std::string message_;
  std::string detail_;
  std::string hint_;
};

// A value or the Status that tells why there is none.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}  // NOLINT: implicit on purpose
  Result(Status status) : status_(std::move(status)) { assert(!status_.ok()); }  // NOLINT

  bool ok() const { return status_.ok(); }
  const Status& status() const { return status_; }
  T& value() {
    assert(ok());
    return value_;
  }
  const T& value() const {
    assert(ok());
    return value_;
  }

 private:
  Status status_;
  T value_{};
};

}  // namespace polarx
