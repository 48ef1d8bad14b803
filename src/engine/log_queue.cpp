// Log records wait here for the main thread; pushed on any thread.
#include "engine/log_queue.h"

#include <algorithm>

namespace polarx {
namespace {

bool IsContinuationByte(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

template <std::size_t kSize>
void CopyText(std::string_view text, char (&out)[kSize]) {
  std::size_t length = std::min(text.size(), kSize - 1);
  if (length < text.size()) {
    // A character has at most three continuation bytes; more is no UTF-8, cut anywhere.
    for (int i = 0; i < 3 && IsContinuationByte(text[length]); ++i) {
      --length;
    }
  }
  text.copy(out, length);
  out[length] = '\0';
}

LogRecord MakeRecord(LogSeverity severity, std::string_view message, std::string_view detail) {
  LogRecord record;
  record.severity = severity;
  CopyText(message, record.message);
  CopyText(detail, record.detail);
  return record;
}

LogRecord DroppedRecord(std::uint64_t count) {
  return MakeRecord(LogSeverity::kWarning, "pooler log messages lost: " + std::to_string(count),
                    "They came faster than the server log took them.");
}

}  // namespace

void LogQueue::Push(LogSeverity severity, std::string_view message, std::string_view detail) {
  const LogRecord record = MakeRecord(severity, message, detail);
  MutexLock lock(&mutex_);
  const std::size_t needed = dropped_ > 0 ? 2 : 1;
  if (records_.size() + needed > kCapacity) {
    ++dropped_;
    return;
  }
  if (dropped_ > 0) {
    records_.push_back(DroppedRecord(dropped_));
    dropped_ = 0;
  }
  records_.push_back(record);
}

bool LogQueue::Pop(LogRecord* record) {
  MutexLock lock(&mutex_);
  if (!records_.empty()) {
    *record = records_.front();
    records_.pop_front();
    return true;
  }
  if (dropped_ > 0) {
    *record = DroppedRecord(dropped_);
    dropped_ = 0;
    return true;
  }
  return false;
}

}  // namespace polarx
