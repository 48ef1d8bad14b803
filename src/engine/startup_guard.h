// What a datanode says in a startup, looked at before libpq reads it; a pure state machine over
// bytes, on the worker thread that opens the connection.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace polarx {

// `bytes`: the first that has come on a new connection. Does a server begin to answer a startup?
// Other services begin with something else, and so does a server that cannot fork: it says why in
// words of version 2 of the protocol.
bool BeginsAnswer(std::string_view bytes);

// Says what libpq may read: only whole messages, of which none makes it block its thread (on a key
// server, on a hash with millions of iterations) or use memory without end.
class StartupGuard {
 public:
  enum class Step {
    kFeed,    // libpq may read the first `size` bytes, and no more
    kLeave,   // libpq may read all: an error, or nonsense, of which it says what it is
    kWait,    // no message is whole yet
    kRefuse,  // the connection is to be given up, because of `why`
  };
  struct Verdict {
    Step step = Step::kLeave;
    std::size_t size = 0;
    std::string why;
    bool demand = false;  // kRefuse: what it demands of who connects cannot be met
  };

  // `bytes`, kWindow at most, have come and libpq has not read them; the last `fresh` of them since
  // the last look. `logged_in`: libpq has been told that authentication is over.
  Verdict Look(std::string_view bytes, std::size_t fresh, bool logged_in);
  // libpq has begun anew, on another socket.
  void BeginAgain() { failed_ = false; }
  // Has a server said anything, on any of the sockets?
  bool server_answered() const { return server_answered_; }

  // A message that is longer is none of a startup's: libpq has the same limit (30,000).
  static constexpr std::size_t kWindow = 32768;
  // Of all that a server says before it is ready. PostgreSQL says less than 1 kB.
  static constexpr std::size_t kMostBytes = std::size_t{1} << 20;

 private:
  static Verdict LookAtMessages(std::string_view bytes, bool logged_in);

  bool server_answered_ = false;
  bool failed_ = false;    // the server has reported an error, and says nothing more
  std::size_t bytes_ = 0;  // that have come
};

}  // namespace polarx
