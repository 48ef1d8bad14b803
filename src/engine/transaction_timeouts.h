// Which datanodes have a time-out of transactions, which would end a lent connection; on a worker
// thread.
#pragma once

#include <map>
#include <string>
#include <string_view>

namespace polarx {

// PostgreSQL 17 and later have transaction_timeout; a server before that refuses a connection whose
// options name it. So the first connection to a server goes without and tells its version; it is
// then opened again with the setting, like all that follow. Belongs to one worker thread.
class TransactionTimeouts {
 public:
  // Added to the option `options`, behind the user's own.
  static constexpr const char* kOff = " -c transaction_timeout=0";

  // May a connection to `server` (any text that tells servers apart) have kOff?
  bool Known(const std::string& server) const {
    const auto found = known_.find(server);
    return found != known_.end() && found->second;
  }
  // A connection without kOff is open. Returns true if it has to be opened again with kOff.
  bool LearnVersion(const std::string& server, int version) {
    if (version < kFirstVersion) {
      known_.erase(server);
      return false;
    }
    return known_.emplace(server, true).first->second;
  }
  // A connection with kOff has failed. Returns true if the setting is the reason: the server is an
  // older one by now, or stands behind a proxy that refuses it, and is tried without.
  bool LearnRefusal(const std::string& server, std::string_view error) {
    if (error.find("transaction_timeout") == std::string_view::npos) {
      return false;
    }
    known_[server] = false;
    return true;
  }

 private:
  static constexpr int kFirstVersion = 170000;  // as PQserverVersion() tells it

  std::map<std::string, bool> known_;  // false: it has the setting, but has refused it
};

}  // namespace polarx
