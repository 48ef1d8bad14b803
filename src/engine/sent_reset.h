// A reset that a session has sent on a connection which it gives up, and the answer, which whoever
// has the connection next reads: no PGconn knows of either. In backends on their only thread, and
// on worker threads; each object is one thread's.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace polarx {

// Texts that SendReset takes.
inline constexpr std::size_t kLongestReset = 1000;

// Sends `text` as one simple query, without waiting, on a connection on which nothing is under way.
// False: it was not sent whole, and the connection is good for nothing any more.
bool SendReset(int socket, std::string_view text);

// The answer as it nearly always is: of commands that went well, with or without rows.
struct PlainAnswer {
  bool come = false;     // something can be read, the datanode's end included
  std::size_t size = 0;  // of the answer; 0: it is not such a one, or not whole
  bool alone = false;    // nothing has come behind it
};
// Looks, without waiting, and takes nothing.
PlainAnswer LookForPlainAnswer(int socket);
// Takes the answer of that size, which was looked at. False: the connection is broken.
bool TakePlainAnswer(int socket, std::size_t size);

// Reads any answer, to its last byte and what the datanode has said unasked behind it.
class AnswerReader {
 public:
  enum class State {
    kMore,    // is to come
    kDone,    // the commands went well, and no transaction is open
    kFailed,  // the connection is to be closed
  };
  // `may_be_empty`: the query may have had nothing in it.
  explicit AnswerReader(bool may_be_empty = false) : may_be_empty_(may_be_empty) {}

  // Reads what has come, without waiting.
  State Read(int socket);

  // Why it failed.
  const std::string& error() const { return error_; }
  // Names of the parameters whose values were reported.
  const std::vector<std::string>& parameters() const { return parameters_; }

 private:
  State Take();
  bool TakeMessage(char type, std::string_view body);
  bool TakeEnd(std::string_view body);

  const bool may_be_empty_;
  std::string unread_;  // the beginning of a message
  bool answered_ = false;
  bool ended_ = false;
  std::string error_;
  std::vector<std::string> parameters_;
};

}  // namespace polarx
