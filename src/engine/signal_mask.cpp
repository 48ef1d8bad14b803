// Threads are started here, with every signal blocked from their first instruction on.
#include "engine/signal_mask.h"

#include <pthread.h>

#include <cassert>
#include <csignal>
#include <system_error>
#include <utility>

namespace polarx {
namespace {

// A new thread inherits the mask of its maker.
class AllSignalsBlocked {
 public:
  AllSignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &saved_);
  }
  ~AllSignalsBlocked() { pthread_sigmask(SIG_SETMASK, &saved_, nullptr); }
  AllSignalsBlocked(const AllSignalsBlocked&) = delete;
  AllSignalsBlocked& operator=(const AllSignalsBlocked&) = delete;

 private:
  sigset_t saved_;
};

}  // namespace

Result<std::thread> StartThread(const std::string& name, std::function<void()> body) {
  assert(name.size() <= 15);
  AllSignalsBlocked blocked;
  try {
    return std::thread([name, body = std::move(body)] {
      pthread_setname_np(pthread_self(), name.c_str());
      body();
    });
  } catch (const std::system_error& error) {
    return Status(sqlstate::kOutOfDescriptors,
                  "could not start thread " + name + ": " + error.code().message());
  }
}

}  // namespace polarx
