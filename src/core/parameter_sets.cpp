// Parameter values that datanodes report, kept once; on the main thread and in backends.
#include "core/parameter_sets.h"

#include <algorithm>
#include <utility>

namespace polarx {

SharedParameters ParameterSets::Intern(protocol::Parameters values) {
  std::erase_if(sets_, [](const auto& set) { return set.expired(); });
  for (const auto& known : sets_) {
    if (SharedParameters set = known.lock(); set != nullptr && set->values == values) {
      return set;
    }
  }
  auto set = std::make_shared<const ParameterSet>(ParameterSet{next_++, std::move(values)});
  sets_.push_back(set);
  return set;
}

bool ToldSets::MustTell(std::uint64_t id) {
  if (std::find(told_.begin(), told_.end(), id) != told_.end()) {
    return false;
  }
  if (told_.size() == kSetsOfASession) {
    told_.pop_front();
  }
  told_.push_back(id);
  return true;
}

void KnownSets::Add(SharedParameters set) {
  if (sets_.size() == kSetsOfASession) {
    sets_.pop_front();
  }
  sets_.push_back(std::move(set));
}

SharedParameters KnownSets::Find(std::uint64_t id) const {
  const auto found = std::find_if(sets_.begin(), sets_.end(),
                                  [id](const SharedParameters& set) { return set->id == id; });
  return found == sets_.end() ? nullptr : *found;
}

}  // namespace polarx
