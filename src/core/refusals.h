// What a request is told that cannot be served: the true reason, which node, its place, what is
// under way, and what to do about it. Pure functions.
#pragma once

#include <optional>
#include <string>

#include "core/pool.h"
#include "core/status.h"
#include "core/ticket.h"

namespace polarx {

// Who holds a connection of a node for longest.
struct LongestHolder {
  int pid = 0;
  Duration held{};
  const Ticket* waits = nullptr;  // what its session waits for itself; null: nothing
};

// The node did not ask for the password of its mapping, and no other may be used for it.
Status PasswordRefusal(const Node& node);
Status PausedRefusal(const Node& node, const Ticket& ticket, TimePoint now);
// All connections of the node are lent, or older requests get those that are not. `place`: of the
// ticket among those that wait for the node.
Status FullRefusal(const Node& node, const Ticket& ticket, int place,
                   const std::optional<LongestHolder>& holder, TimePoint now);
// The pool may open a connection, but none was open in time.
Status UnansweredRefusal(const Pool& pool, const Ticket& ticket,
                         std::chrono::seconds connect_timeout, TimePoint now);

}  // namespace polarx
