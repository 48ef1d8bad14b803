// Fuzz target: parameter values of a Granted frame on their way into libpq, when a lent descriptor
// becomes a PGconn. The datanode at its other end must hear nothing of it.
#include <sys/socket.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <map>

#include "engine/adopt.h"
#include "streams.h"

namespace polarx {
namespace {

using fuzz::Require;

void Check(std::int32_t pid, const protocol::Parameters& parameters) {
  auto [datanode, lent] = fuzz::SocketPair();
  const Result<PGconn*> adopted =
      AdoptConnection(std::move(lent), pid, parameters, std::chrono::seconds(5));
  Require(adopted.ok(), "an adoption succeeds");
  PGconn* conn = adopted.value();
  Require(PQstatus(conn) == CONNECTION_OK && PQtransactionStatus(conn) == PQTRANS_IDLE,
          "it is ready");
  Require(PQbackendPID(conn) == pid, "the pid is the datanode's");
  std::map<std::string, std::string> last;
  for (const auto& [name, value] : parameters) {
    last[name] = value;
  }
  for (const auto& [name, value] : last) {
    const char* known = PQparameterStatus(conn, name.c_str());
    Require(known != nullptr && value == known, "the parameters are the datanode's");
  }
  Require(ChangedParameters(conn, {last.begin(), last.end()}).empty(), "nothing has changed");
  DetachConnection(conn);
  PQfinish(conn);
  char byte;
  Require(::recv(datanode.get(), &byte, 1, MSG_DONTWAIT) == 0, "no word, but the end of file");
}

}  // namespace
}  // namespace polarx

// The first four bytes are the pid, then lines with name and value.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::int32_t pid = 0;
  std::memcpy(&pid, data, std::min(size, sizeof(pid)));
  std::string text(polarx::fuzz::Text(data, size).substr(std::min(size, sizeof(pid))));
  std::erase(text, '\0');  // the frame's decoder refuses it
  polarx::protocol::Parameters parameters;
  for (std::string_view rest = text; !rest.empty();) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    const std::string_view line = rest.substr(0, end);
    const std::size_t sign = std::min(line.find('='), line.size());
    parameters.emplace_back(line.substr(0, sign), line.substr(std::min(sign + 1, line.size())));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  static bool first = true;
  if (std::exchange(first, false)) {
    polarx::Check(1, {});  // the placeholder is kept for good
  }
  const polarx::fuzz::DescriptorsKept kept;
  polarx::Check(pid, parameters);
  return 0;
}
