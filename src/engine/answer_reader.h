// Reads the answer to a statement that the pooler worker, or a session on its behalf, has sent:
// the only parser of answers on worker threads. Each object is one thread's.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "core/protocol.h"

namespace polarx {

// Reads one answer after the other, each to its last byte and what the datanode has said unasked
// behind it (notices, notifications, parameter values).
class AnswerReader {
 public:
  enum class State {
    kMore,     // more is to come, or there is more to read: call Read again
    kDone,     // the commands went well, and nothing is left behind the answer
    kRefused,  // likewise, but the datanode has reported an error
    kFailed,   // the connection is to be closed
  };

  // Of all answers together. What the pooler sends is answered by some hundred bytes.
  static constexpr std::size_t kMostBytes = std::size_t{1} << 20;

  // No statement has been sent yet: only what a datanode may say unasked will do.
  AnswerReader() = default;

  // Another statement has been sent. `may_be_empty`: it may have had nothing in it.
  void Begin(bool may_be_empty);

  // Reads what has come, without waiting, and no more than 64 kB.
  State Read(int socket);

  // Why it was refused or failed, in one line.
  const std::string& error() const { return error_; }
  // Of the datanode's error; "" if it reported none, or no proper one.
  const std::string& sqlstate() const { return sqlstate_; }
  // The transaction's state at the end of the answer: 'I', 'T' or 'E' as in the protocol.
  char transaction() const { return transaction_; }
  // The first column of the answer's only row; unset if it is null or there is not one row.
  const std::optional<std::string>& value() const { return value_; }
  // Values that were reported since ForgetParameters, of kReportedParameters only.
  const protocol::Parameters& parameters() const { return parameters_; }
  void ForgetParameters() { parameters_.clear(); }

 private:
  State Take();
  State Result() const;
  bool TakeMessage(char type, std::string_view body);
  bool TakeEnd(std::string_view body);
  void TakeError(std::string_view body);
  void TakeParameter(std::string_view body);
  bool TakeRow(std::string_view body);

  std::size_t bytes_ = 0;  // of all answers
  std::string unread_;     // the beginning of a message
  bool may_be_empty_ = false;
  bool answered_ = false;
  bool ended_ = true;
  char transaction_ = 'I';
  std::size_t rows_ = 0;
  std::optional<std::string> value_;
  std::string error_;
  std::string sqlstate_;
  protocol::Parameters parameters_;
};

}  // namespace polarx
