// What a datanode asks of who connects, looked at before libpq does it; pure functions over bytes.
#include "engine/authentication.h"

#include "engine/server_messages.h"

namespace polarx {
namespace {

// About half a second. PostgreSQL's default is 4096.
constexpr long kMostIterations = 1000000;

enum Request : unsigned { kGss = 7, kGssContinue = 8, kSspi = 9, kSaslContinue = 11 };

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

Status Refusal(const std::string& node_name, const std::string& why) {
  return Status(sqlstate::kInvalidAuthorization,
                "could not connect to datanode \"" + node_name + "\": " + why);
}

}  // namespace

bool BeginsAnswer(std::string_view bytes) {
  constexpr std::string_view kTypes = "REvN";  // authentication, error, version, notice
  constexpr std::size_t kLongest = 30000;      // as libpq has it
  const std::size_t size = MessageSize(bytes);
  return size >= kMessageHead && size <= kLongest &&
         kTypes.find(bytes.front()) != std::string_view::npos;
}

Status CheckAuthentication(const std::string& node_name, std::string_view bytes) {
  constexpr std::size_t kHeader = 9;
  if (bytes.size() < kHeader || bytes[0] != 'R') {
    return Status::Ok();
  }
  const unsigned length = Number(bytes.substr(1, 4));
  switch (Number(bytes.substr(5, 4))) {
    case kGss:
    case kGssContinue:
    case kSspi:
      return Refusal(node_name,
                     "it demands GSSAPI authentication, which the pooler does not offer");
    case kSaslContinue:
      // The length counts itself and the kind.
      if (Iterations(bytes.substr(kHeader, length < 8 ? 0 : length - 8)) > kMostIterations) {
        return Refusal(node_name, "it demands more than " + std::to_string(kMostIterations) +
                                      " iterations of a password's hash");
      }
      return Status::Ok();
    default:
      return Status::Ok();
  }
}

}  // namespace polarx
