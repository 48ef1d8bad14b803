// A look at a descriptor before its thread sleeps; on any thread.
#include "engine/busy_wait.h"

#include <poll.h>

namespace polarx {

bool WaitBusily(int fd, BusyPoll* policy) {
  return LookBusily(policy, [fd] {
    pollfd look = {fd, POLLIN, 0};
    return ::poll(&look, 1, 0) > 0;
  });
}

}  // namespace polarx
