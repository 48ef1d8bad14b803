// A look at a descriptor before its thread sleeps.
#pragma once

#include "polarx_pooler/core/busy_poll.h"

namespace polarx {

// Looks whether `fd` is readable, again and again for at most BusyPoll::kLook, if `policy` says
// that this wait begins with a look; between two looks others may have the core. True: it is
// readable (or broken). False: still to be waited for.
bool WaitBusily(int fd, BusyPoll* policy);

}  // namespace polarx
