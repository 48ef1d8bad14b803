// Log records on their way from any thread to the server log: the third shared class.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>

#include "engine/mutex.h"

namespace polarx {

enum class LogSeverity : std::uint8_t { kDebug, kLog, kWarning };

// Fixed in size and trivially destructible, so that a frame that reports it may be left by longjmp.
struct LogRecord {
  LogSeverity severity = LogSeverity::kLog;
  char message[512] = {};  // cut at the end of a UTF-8 character if longer
  char detail[512] = {};
};

// Thread-safe, bounded: what does not fit is counted and told in one record later on.
class LogQueue {
 public:
  static constexpr std::size_t kCapacity = 1024;
  void Push(LogSeverity severity, std::string_view message, std::string_view detail = {});
  bool Pop(LogRecord* record);  // false: empty

 private:
  Mutex mutex_;
  std::deque<LogRecord> records_ POLARX_GUARDED_BY(mutex_);
  std::uint64_t dropped_ POLARX_GUARDED_BY(mutex_) = 0;
};

}  // namespace polarx
