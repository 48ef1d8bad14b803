// What the engine asks the pg side about, and tells it: plain values on the main thread.
#pragma once

#include <string>

#include "core/node.h"
#include "core/slot.h"

namespace polarx {

// A process that connected: the pg side looks it up among the server's processes.
struct AttachQuestion {
  SessionId session = 0;
  int pid = 0;  // by the kernel's word (SO_PEERCRED)
};

// A lease that is held for longer than pooler.lease_warn_after.
struct LongLease {
  std::string node;
  std::string remote_user;
  int session_pid = 0;
  int remote_pid = 0;
  double seconds = 0;
};

}  // namespace polarx
