// Stat lines go to the log here; on the main thread.
#include "engine/stat_printer.h"

#include <utility>

#include "core/pool_views.h"

namespace polarx {

StatPrinter::StatPrinter(LogQueue* log, std::string database, const Settings& settings,
                         TimePoint now)
    : log_(log),
      database_(std::move(database)),
      interval_(settings.pool_print_stat_timeout),
      next_at_(AfterInterval(now, interval_)),
      since_(now) {}

void StatPrinter::Apply(const Settings& settings, TimePoint now) {
  if (settings.pool_print_stat_timeout != interval_) {
    interval_ = settings.pool_print_stat_timeout;
    next_at_ = AfterInterval(now, interval_);
  }
}

void StatPrinter::PrintDue(PoolBook* book, TimePoint now) {
  if (now < next_at_) {
    return;
  }
  next_at_ = AfterInterval(now, interval_);
  book->CountParked();
  const RequestCounters& counters = book->counters();
  log_->Push(LogSeverity::kLog, DatabaseStatLine(database_, counters.Since(printed_)));
  printed_ = counters;
  for (const auto& [id, pool] : book->directory().pools()) {
    log_->Push(LogSeverity::kLog, PoolStatLine(database_, FiguresSinceLastLine(*pool)));
    pool->printed_counters = pool->counters;
    pool->printed_acquire_time = pool->acquire_time;
  }
}

void StatPrinter::Reset(TimePoint now) {
  printed_ = {};
  events_ = {};
  since_ = now;
}

}  // namespace polarx
