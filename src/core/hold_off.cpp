// After a failed connect: when to try again, and what to say until then; on the main thread.
#include "core/hold_off.h"

#include <algorithm>
#include <cstdio>

namespace polarx {

FailureScope ScopeOfFailure(const std::string& code, ConnectReach reach) {
  // 08: connection trouble; 53: the server lacks something; 57: shutting down, starting up. But
  // descriptors are what this process lacks.
  if (code == sqlstate::kOutOfDescriptors) {
    return FailureScope::kSelf;
  }
  const std::string error_class = code.substr(0, 2);
  const bool unreachable = error_class == "08" && reach == ConnectReach::kNothing;
  return unreachable || error_class == "53" || error_class == "57" ? FailureScope::kNode
                                                                   : FailureScope::kPool;
}

bool HoldOff::Fail(const Status& status, TimePoint now, double jitter) {
  const bool change = !active();
  const int doublings = std::min(failures_, 16);
  const Duration delay = std::min(kFirstDelay * (1 << doublings), kLongestDelay);
  failures_ = std::min(failures_ + 1, 1000);
  retry_at_ = now + delay - std::chrono::duration_cast<Duration>(delay * (jitter / 4));
  failed_at_ = now;
  status_ = status;
  return change;
}

bool HoldOff::Clear() {
  proven_ = false;
  return std::exchange(failures_, 0) > 0;
}

bool HoldOff::Crowded(TimePoint now) const {
  return !status_.ok() && status_.sqlstate().starts_with("53") &&
         status_.sqlstate() != sqlstate::kOutOfDescriptors && now < failed_at_ + kCrowdedFor;
}

Status HoldOff::Refusal(TimePoint now) const {
  const double seconds = std::max(std::chrono::duration<double>(retry_at_ - now).count(), 0.0);
  char when[80];
  std::snprintf(when, sizeof(when), "The next attempt is in %.1f s.", seconds);
  std::string detail = status_.detail();
  detail += detail.empty() ? "" : " ";
  // A node that is out of reach is one thing to a session, whatever the datanode calls it: its own
  // 53300 or 57P03 would read like this pooler's.
  return Status(ScopeOfFailure(status_.sqlstate()) == FailureScope::kNode
                    ? sqlstate::kConnectionFailed
                    : status_.sqlstate(),
                status_.message(), detail + when, status_.hint());
}

}  // namespace polarx
