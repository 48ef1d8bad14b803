// Where sessions knock: who comes in, who is told that there is no room, who is hung up on; on the
// main thread.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <vector>

#include "core/time.h"
#include "engine/log_queue.h"
#include "engine/poller.h"
#include "engine/unique_fd.h"

namespace polarx {

// A process that connected.
struct Guest {
  UniqueFd socket;  // non-blocking
  int pid = 0;      // by the kernel's word (SO_PEERCRED)
};

class Listener {
 public:
  // `socket`: a listening Unix socket, non-blocking. `user`: whose processes may connect. `poller`
  // and `log` outlive the listener.
  Listener(UniqueFd socket, uid_t user, Poller* poller, LogQueue* log);

  // Adds the socket to the poller's set, under `key`. Returns false where the system refuses.
  [[nodiscard]] bool Watch(std::uint64_t key);

  // Takes in who knocks, a bounded number a call. A process that cannot be let in for want of a
  // descriptor is told so; where not even that can be done, the socket is left alone for a while.
  std::vector<Guest> Accept(TimePoint now);

  // When ListenAgain is needed: kNever while the poller watches the socket.
  TimePoint listen_again_at() const { return listen_again_at_; }
  // Watches the socket again if the time has come, or else sets another time.
  void ListenAgain(TimePoint now);

 private:
  UniqueFd AcceptOne();
  bool IsOurs(int socket, int* pid, TimePoint now);
  bool TurnAway(int error, TimePoint now);

  const UniqueFd socket_;
  const uid_t user_;
  Poller* const poller_;
  LogQueue* const log_;
  std::uint64_t key_ = 0;
  UniqueFd reserve_;  // given up for a moment to tell who cannot be let in
  TimePoint listen_again_at_ = kNever;
  TimePoint tell_refused_at_{};    // in the log, at the earliest
  TimePoint tell_strangers_at_{};  // in the log, at the earliest
  int strangers_ = 0;              // of other users, since the log was told
};

}  // namespace polarx
