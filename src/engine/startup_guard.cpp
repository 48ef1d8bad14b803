// What a datanode says in a startup, looked at before libpq reads it; a pure state machine over
// bytes.
#include "engine/startup_guard.h"

#include <cassert>
#include <utility>

#include "engine/server_messages.h"

namespace polarx {
namespace {

// About half a second of hashing. PostgreSQL's default is 4096.
constexpr long kMostIterations = 1000000;
constexpr std::size_t kLongestMessage = 30000;

enum Request : unsigned {
  kOk = 0,
  kGss = 7,
  kGssContinue = 8,
  kSspi = 9,
  kSaslContinue = 11,
};

unsigned Number(std::string_view bytes) {
  unsigned number = 0;
  for (char byte : bytes) {
    number = number << 8 | static_cast<unsigned char>(byte);
  }
  return number;
}

// "r=<nonce>,s=<salt>,i=<iterations>"; 0: there are none.
long Iterations(std::string_view challenge) {
  const std::size_t at = challenge.find(",i=");
  long number = 0;
  for (char c : challenge.substr(at == std::string_view::npos ? challenge.size() : at + 3)) {
    if (c < '0' || c > '9' || number > kMostIterations) {
      break;
    }
    number = 10 * number + (c - '0');
  }
  return number;
}

// Why the request cannot be met; "": libpq may have it. `data` is what follows its kind.
std::string WhyNot(unsigned kind, std::string_view data) {
  switch (kind) {
    case kGss:
    case kGssContinue:
    case kSspi:
      return "it demands GSSAPI authentication, which the pooler does not offer";
    case kSaslContinue:
      return Iterations(data) > kMostIterations
                 ? "it demands more than " + std::to_string(kMostIterations) +
                       " iterations of a password's hash"
                 : "";
    default:
      return "";
  }
}

StartupGuard::Verdict Refuse(std::string why, bool demand = false) {
  return {StartupGuard::Step::kRefuse, 0, std::move(why), demand};
}

// Does libpq take such a message of any length?
bool MayBeLong(char type) {
  return std::string_view("TDdVENA").find(type) != std::string_view::npos;
}

}  // namespace

bool BeginsAnswer(std::string_view bytes) {
  constexpr std::string_view kTypes = "REvN";  // authentication, error, version, notice
  const std::size_t size = MessageSize(bytes);
  return size >= kMessageHead && size <= kLongestMessage &&
         kTypes.find(bytes.front()) != std::string_view::npos;
}

StartupGuard::Verdict StartupGuard::Look(std::string_view bytes, std::size_t fresh,
                                         bool logged_in) {
  assert(fresh <= bytes.size() && bytes.size() <= kWindow);
  bytes_ += fresh;
  if (bytes_ > kMostBytes) {
    return Refuse("it sent more than 1 MB before it was ready");
  }
  if (failed_) {
    return {};
  }
  server_answered_ = server_answered_ || BeginsAnswer(bytes);
  Verdict verdict = LookAtMessages(bytes, logged_in);
  failed_ = verdict.step == Step::kLeave;
  return verdict;
}

StartupGuard::Verdict StartupGuard::LookAtMessages(std::string_view bytes, bool logged_in) {
  std::string_view rest = bytes;
  std::size_t size = 0;
  while ((size = MessageSize(rest)) != 0) {
    const char type = rest.front();
    if (size < kMessageHead) {
      return {};
    }
    if (size > kLongestMessage) {
      return logged_in && MayBeLong(type) ? Refuse("it sent a message of " + std::to_string(size) +
                                                   " bytes before it was ready")
                                          : Verdict{};
    }
    if (size > rest.size()) {
      break;
    }
    const std::string_view body = rest.substr(kMessageHead, size - kMessageHead);
    rest.remove_prefix(size);
    if (type == 'E') {
      return {};
    }
    if (logged_in && type == 'Z') {
      break;
    }
    if (!logged_in && type == 'R' && body.size() >= 4) {
      const unsigned kind = Number(body.substr(0, 4));
      std::string why = WhyNot(kind, body.substr(4));
      if (!why.empty()) {
        return Refuse(std::move(why), true);
      }
      logged_in = kind == kOk;
    }
  }
  const std::size_t whole = bytes.size() - rest.size();
  return {whole > 0 ? Step::kFeed : Step::kWait, whole, "", false};
}

}  // namespace polarx
