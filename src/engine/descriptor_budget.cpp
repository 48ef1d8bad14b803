// Descriptors are counted here; on the main thread.
#include "engine/descriptor_budget.h"

#include <sys/resource.h>

#include <cassert>
#include <system_error>
#include <utility>

namespace polarx {
namespace {

constexpr int kReserve = 8;  // for lookups, cancels and whoever is turned away

Status NoDescriptor(const std::string& purpose, std::string detail) {
  return Status(sqlstate::kOutOfDescriptors, "pooler worker has no descriptor left for " + purpose,
                std::move(detail),
                "Raise the server's limit of open files, or lower pooler.max_pool_size.");
}

}  // namespace

DescriptorBudget::DescriptorBudget(int limit, int fixed)
    : limit_(limit), fixed_(fixed), used_(fixed) {
  assert(limit > 0 && fixed >= 0);
}

void DescriptorBudget::GiveBack() {
  assert(used_ > fixed_);
  --used_;
}

Status DescriptorBudget::RoomFor(const std::string& purpose) const {
  return used_ + kReserve <= limit_
             ? Status()
             : NoDescriptor(purpose, std::to_string(used_) + " of " + std::to_string(limit_) +
                                         " descriptors are in use.");
}

Status DescriptorBudget::Refused(const std::string& purpose, int error) {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  return NoDescriptor(purpose, std::generic_category().message(error) + "; the process may have " +
                                   std::to_string(limit.rlim_cur) + ".");
}

}  // namespace polarx
