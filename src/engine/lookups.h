// Looks host names up on helper threads: one lookup of a name at a time for all who wait for it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "core/time.h"

namespace polarx {

class HelperPool;

// The addresses of a host in text form, comma separated, or an error text.
struct LookupResult {
  std::string addresses;
  std::string error;
};

// Thread-safe.
class NameLookups {
 public:
  // A lookup that has lasted longer is no longer joined by who comes: one more begins beside it,
  // of which there can be one a name.
  static constexpr Duration kJoinable = std::chrono::seconds(5);

  explicit NameLookups(HelperPool* helpers);  // which outlives this object
  ~NameLookups();

  // Has `host` looked up. `answer` is called once, on a helper thread, unless Leave comes first; it
  // must own all that it uses. Returns the ticket for Leave, never 0.
  using Answer = std::function<void(const LookupResult&)>;
  std::uint64_t Ask(const std::string& host, Answer answer);

  // Whoever asked waits no longer. A lookup that nobody waits for does not begin any more; one that
  // is under way serves who asks for that name until it is over.
  void Leave(std::uint64_t ticket);

 private:
  struct Shared;  // outlives the object while a lookup is stuck
  const std::shared_ptr<Shared> shared_;
  HelperPool* const helpers_;
};

// How names become addresses, replaceable in tests. May block; called on helper threads.
using LookupFunction = LookupResult (*)(const std::string& host);
LookupResult LookUpHost(const std::string& host);
void SetLookupForTest(LookupFunction lookup);  // null: the real one

}  // namespace polarx
