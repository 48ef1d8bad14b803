// When each of many things is to be looked at next: one time for each id; on the main thread.
#pragma once

#include <cassert>
#include <cstddef>
#include <optional>
#include <set>
#include <unordered_map>
#include <utility>

#include "core/time.h"

namespace polarx {

// An id is in the queue once or not at all. Each call takes O(log n); TimeOf and Next take O(1).
template <typename Id>
class TimerQueue {
 public:
  // Its entries in order of time, those of one time in order of id.
  using Entries = std::set<std::pair<TimePoint, Id>>;

  // The id has this time and no other; kNever: none.
  void Set(Id id, TimePoint at) {
    if (at == kNever) {
      Remove(id);
      return;
    }
    const auto [place, is_new] = times_.try_emplace(id, at);
    if (is_new) {
      entries_.emplace(at, id);
    } else if (place->second != at) {
      auto entry = entries_.extract({place->second, id});
      assert(!entry.empty());
      entry.value().first = place->second = at;
      entries_.insert(std::move(entry));
    }
    assert(times_.size() == entries_.size());
  }

  // The id has this time, unless it has an earlier one.
  void SetEarlier(Id id, TimePoint at) {
    if (at < TimeOf(id)) {
      Set(id, at);
    }
  }

  // Does nothing where the id has no time.
  void Remove(Id id) {
    if (const auto place = times_.find(id); place != times_.end()) {
      entries_.erase({place->second, id});
      times_.erase(place);
    }
    assert(times_.size() == entries_.size());
  }

  // Takes the first one out whose time has come; nothing: none has.
  std::optional<Id> TakeDue(TimePoint now) {
    if (Next() > now || entries_.empty()) {
      return std::nullopt;
    }
    const Id id = entries_.begin()->second;
    Remove(id);
    return id;
  }

  // kNever: the id has none.
  TimePoint TimeOf(Id id) const {
    const auto place = times_.find(id);
    return place == times_.end() ? kNever : place->second;
  }

  // Of the first one; kNever: there is none.
  TimePoint Next() const { return entries_.empty() ? kNever : entries_.begin()->first; }

  std::size_t size() const { return entries_.size(); }

  // Removing an entry leaves the places of the others valid.
  const Entries& entries() const { return entries_; }

 private:
  Entries entries_;
  std::unordered_map<Id, TimePoint> times_;
};

}  // namespace polarx
