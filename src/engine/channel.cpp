// The wake-up of a thread that waits in epoll; Signal on any thread, Clear on the waiting one.
#include "engine/channel.h"

#include <sys/eventfd.h>

namespace polarx {

Wakeup::Wakeup() : fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

// Neither call can fail in a way that matters: EAGAIN says that the wake-up is (not) there already.
void Wakeup::Signal() { (void)::eventfd_write(fd_.get(), 1); }

void Wakeup::Clear() {
  eventfd_t count;
  (void)::eventfd_read(fd_.get(), &count);
}

}  // namespace polarx
