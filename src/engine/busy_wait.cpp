// A look at a descriptor before its thread sleeps; on any thread.
#include "polarx_pooler/engine/busy_wait.h"

#include <poll.h>
#include <sched.h>

namespace polarx {

bool WaitBusily(int fd, BusyPoll* policy) {
  if (!policy->Begin()) {
    return false;
  }
  pollfd look = {fd, POLLIN, 0};
  const TimePoint until = Now() + BusyPoll::kLook;
  bool found = false;
  do {
    (void)::sched_yield();  // first: whoever is to answer may need this core
    found = ::poll(&look, 1, 0) > 0;
  } while (!found && Now() < until);
  policy->End(found);
  return found;
}

}  // namespace polarx
