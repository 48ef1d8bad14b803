// The stat lines of the server log, and since when the statistics count; on the main thread.
#pragma once

#include <string>

#include "core/pool_book.h"
#include "core/settings.h"
#include "core/stat_line.h"
#include "core/time.h"
#include "engine/log_queue.h"

namespace polarx {

class StatPrinter {
 public:
  // `log` outlives the printer; `database`: its name, for the lines.
  StatPrinter(LogQueue* log, std::string database, const Settings& settings, TimePoint now);

  // The interval, pool_print_stat_timeout, may have changed.
  void Apply(const Settings& settings, TimePoint now);
  TimePoint next_at() const { return next_at_; }
  // If the time has come: one line for the database and one for each pool of the book, with what
  // came since the last ones.
  void PrintDue(PoolBook* book, TimePoint now);

  // The statistics count from now on.
  void Reset(TimePoint now);
  TimePoint since() const { return since_; }
  EventCounters* events() { return &events_; }
  const EventCounters& events() const { return events_; }

 private:
  LogQueue* const log_;
  const std::string database_;
  std::chrono::seconds interval_;
  TimePoint next_at_;
  TimePoint since_;
  RequestCounters printed_;  // as of the last line
  EventCounters events_;
};

}  // namespace polarx
