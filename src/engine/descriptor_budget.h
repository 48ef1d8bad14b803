// How many descriptors the pooler holds, and whether it may open another; on the main thread.
#pragma once

#include <string>

#include "core/status.h"

namespace polarx {

// Counts only: whoever opens or closes a socket says so.
class DescriptorBudget {
 public:
  // `limit`: what the process may have open. `fixed`: what the pooler holds for as long as it runs.
  DescriptorBudget(int limit, int fixed);

  void Take() { ++used_; }
  void GiveBack();
  int used() const { return used_; }

  // Returns 53000 unless one more may be opened, and a few after it; `purpose` says what for.
  Status RoomFor(const std::string& purpose) const;

  // The same refusal, where the system itself has refused with `error` (of errno).
  static Status Refused(const std::string& purpose, int error);

 private:
  const int limit_;
  const int fixed_;
  int used_;
};

}  // namespace polarx
