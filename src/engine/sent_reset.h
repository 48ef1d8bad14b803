// A reset that a session sends on a connection which it gives up, and its plain answer, which the
// session may take: no PGconn knows of either. In backends, on their only thread. Any other answer
// is the pooler's to read, by AnswerReader.
#pragma once

#include <cstddef>
#include <string_view>

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

}  // namespace polarx
