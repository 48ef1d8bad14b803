// The rows of the views: made a piece a turn, so that a long view holds nobody up; on the main
// thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "core/pool_book.h"
#include "core/pool_views.h"
#include "core/protocol.h"
#include "engine/session_leases.h"
#include "engine/session_server.h"
#include "engine/stat_printer.h"

namespace polarx {

class ViewAnswers {
 public:
  // All outlive this object.
  ViewAnswers(PoolBook* book, SessionServer* sessions, SessionLeases* leases,
              const StatPrinter* stats)
      : book_(book), sessions_(sessions), leases_(leases), stats_(stats) {}

  // A session asks for a view: what there is now will be shown, as it is when its row is made.
  void Begin(const Session& session, const protocol::Show& show, TimePoint now);
  // Makes at most kRowsATurn rows and sends the views that are whole. In every turn.
  void Continue(TimePoint now);
  bool busy() const { return !jobs_.empty(); }  // Continue is needed at once

  static constexpr std::size_t kRowsATurn = 500;  // a millisecond, at 1 to 2 us each

 private:
  struct Job {
    SessionId session = 0;
    protocol::View view = protocol::View::kNodes;
    protocol::RowsFrame frame;
    std::vector<std::uint64_t> ids;  // of what is to be shown, in order
    std::size_t next = 0;            // of them
  };
  std::vector<std::uint64_t> IdsOf(protocol::View view) const;
  std::optional<protocol::Row> RowOf(protocol::View view, std::uint64_t id, const WallClock& clock);
  std::optional<protocol::Row> SessionRow(SessionId id, const WallClock& clock);
  WallClock Wall(TimePoint now);

  PoolBook* const book_;
  SessionServer* const sessions_;
  SessionLeases* const leases_;
  const StatPrinter* const stats_;
  std::deque<Job> jobs_;
  Duration wall_offset_{};  // from the steady clock to the time of day
};

}  // namespace polarx
