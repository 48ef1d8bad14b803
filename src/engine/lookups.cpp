// Looks host names up on helper threads; asked by worker threads.
#include "engine/lookups.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>

#include <atomic>
#include <map>
#include <unordered_map>
#include <utility>

#include "engine/helper.h"
#include "engine/mutex.h"

namespace polarx {
namespace {

std::string AddressText(const addrinfo& entry) {
  char text[INET6_ADDRSTRLEN + IF_NAMESIZE + 1] = "";
  getnameinfo(entry.ai_addr, entry.ai_addrlen, text, sizeof(text), nullptr, 0, NI_NUMERICHOST);
  return text;
}

LookupResult SystemLookup(const std::string& host) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* list = nullptr;
  LookupResult result;
  if (const int error = getaddrinfo(host.c_str(), nullptr, &hints, &list); error != 0) {
    result.error = gai_strerror(error);
    return result;
  }
  for (const addrinfo* entry = list; entry != nullptr; entry = entry->ai_next) {
    result.addresses += (result.addresses.empty() ? "" : ",") + AddressText(*entry);
  }
  freeaddrinfo(list);
  return result;
}

std::atomic<LookupFunction> lookup_function{&SystemLookup};

}  // namespace

LookupResult LookUpHost(const std::string& host) { return lookup_function.load()(host); }

void SetLookupForTest(LookupFunction lookup) {
  lookup_function = lookup != nullptr ? lookup : &SystemLookup;
}

struct NameLookups::Shared {
  using Answers = std::map<std::uint64_t, Answer>;  // by ticket
  struct Name {
    Answers waiting;
    int lookups = 0;  // begun or about to begin
    TimePoint last_began{};
  };

  // On a helper thread.
  void LookUp(const std::string& host);
  bool MustBegin(const std::string& host);
  Answers End(const std::string& host);

  Mutex mutex;
  std::map<std::string, Name> names POLARX_GUARDED_BY(mutex);  // those with lookups
  std::unordered_map<std::uint64_t, std::string> hosts POLARX_GUARDED_BY(mutex);  // by ticket
  std::uint64_t next_ticket POLARX_GUARDED_BY(mutex) = 1;
};

bool NameLookups::Shared::MustBegin(const std::string& host) {
  MutexLock lock(&mutex);
  Name& name = names.at(host);
  name.last_began = Now();
  return !name.waiting.empty();
}

// One lookup is over. Returns who waited.
NameLookups::Shared::Answers NameLookups::Shared::End(const std::string& host) {
  MutexLock lock(&mutex);
  const auto name = names.find(host);
  Answers answers = std::exchange(name->second.waiting, {});
  for (const auto& [ticket, answer] : answers) {
    hosts.erase(ticket);
  }
  if (--name->second.lookups == 0) {
    names.erase(name);
  }
  return answers;
}

void NameLookups::Shared::LookUp(const std::string& host) {
  LookupResult result{"", "out of memory"};
  if (MustBegin(host)) {
    try {
      result = LookUpHost(host);
    } catch (const std::exception&) {
      // Out of memory, as it says already.
    }
  }
  for (const auto& [ticket, answer] : End(host)) {
    answer(result);
  }
}

NameLookups::NameLookups(HelperPool* helpers)
    : shared_(std::make_shared<Shared>()), helpers_(helpers) {}

NameLookups::~NameLookups() = default;

std::uint64_t NameLookups::Ask(const std::string& host, Answer answer) {
  std::uint64_t ticket;
  bool begin;
  {
    MutexLock lock(&shared_->mutex);
    ticket = shared_->next_ticket++;
    Shared::Name& name = shared_->names[host];
    name.waiting.emplace(ticket, std::move(answer));
    shared_->hosts.emplace(ticket, host);
    const TimePoint now = Now();
    begin = name.lookups == 0 || (name.lookups == 1 && now >= name.last_began + kJoinable);
    if (begin) {
      ++name.lookups;
      name.last_began = now;
    }
  }
  if (begin) {
    helpers_->Run(HelperLane::kLookup, host, [shared = shared_, host] { shared->LookUp(host); });
  }
  return ticket;
}

void NameLookups::Leave(std::uint64_t ticket) {
  Answer dropped;  // goes last, without the lock
  MutexLock lock(&shared_->mutex);
  const auto host = shared_->hosts.find(ticket);
  if (host == shared_->hosts.end()) {
    return;
  }
  auto& waiting = shared_->names.at(host->second).waiting;
  dropped = std::move(waiting.at(ticket));
  waiting.erase(ticket);
  shared_->hosts.erase(host);
}

}  // namespace polarx
