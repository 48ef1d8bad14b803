// A look at what is waited for before its thread sleeps.
#pragma once

#include <sched.h>

#include "core/busy_poll.h"

namespace polarx {

// Calls `look`, again and again for at most BusyPoll::kLook, until it finds something, if `policy`
// says that this wait begins with looks; before each of them others may have the core, for whoever
// is to answer may need it. True: found. False: still to be waited for.
template <typename Look>
bool LookBusily(BusyPoll* policy, const Look& look) {
  if (!policy->Begin()) {
    return false;
  }
  const TimePoint until = Now() + BusyPoll::kLook;
  bool found = false;
  do {
    (void)::sched_yield();
    found = look();
  } while (!found && Now() < until);
  policy->End(found);
  return found;
}

// Looks whether `fd` is readable (or broken).
bool WaitBusily(int fd, BusyPoll* policy);

}  // namespace polarx
