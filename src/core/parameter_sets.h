// Parameter values that datanodes report, each set kept and sent to a session once, for nearly all
// connections report the same; on the main thread of the pooler worker and in backends.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "core/protocol.h"

namespace polarx {

struct ParameterSet {
  std::uint64_t id = 0;  // never used twice in a pooler worker's life; 0: none
  protocol::Parameters values;
};
using SharedParameters = std::shared_ptr<const ParameterSet>;

// Sets that are in use, equal ones once.
class ParameterSets {
 public:
  SharedParameters Intern(protocol::Parameters values);

 private:
  std::vector<std::weak_ptr<const ParameterSet>> sets_;
  std::uint64_t next_ = 1;
};

// How many sets a session keeps: the last ones that it was sent. Both ends count alike.
inline constexpr std::size_t kSetsOfASession = 16;

// The pooler's record of what one session keeps.
class ToldSets {
 public:
  // Has the set to be sent? Then it counts as sent.
  bool MustTell(std::uint64_t id);

 private:
  std::deque<std::uint64_t> told_;
};

// What the session keeps.
class KnownSets {
 public:
  void Add(SharedParameters set);
  SharedParameters Find(std::uint64_t id) const;  // null: not known

 private:
  std::deque<SharedParameters> sets_;
};

}  // namespace polarx
