// Writes first inputs for the fuzz targets whose inputs are no plain text:  fuzz_seeds DIRECTORY
#include <filesystem>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include "core/protocol.h"

namespace polarx {
namespace {

using std::string;

std::vector<protocol::Request> Requests() {
  return {
      protocol::Attach{.generation = 5},
      protocol::Acquire{
          .request = 7, .queue_timeout_ms = 9, .sets = true, .wanted = {{1, 2}, {3, 4}}},
      protocol::Withdraw{.request = 8},
      protocol::Release{.leases = {{.lease = 1, .kind = {}, .changed = {{"TimeZone", "UTC"}}}}},
      protocol::Cancel{.lease = 99, .number = 3},
      protocol::Show{.request = 1, .view = protocol::View::kStats},
      protocol::Ping{.request = 2, .role = 10, .nodes = {5, 6}},
      protocol::Clean{.request = 3, .node = 0, .remote_user = "app"},
      protocol::Reload{.request = 4},
      protocol::Pause{.request = 5, .node = 16384, .paused = true},
      protocol::ResetStats{.request = 6},
      protocol::Check{.request = 7,
                      .nodes = {{.id = 1, .name = "dn1", .host = "a", .hostaddr = ""}}},
      protocol::Confirm{.request = 8},
      protocol::PartlyCommitted{},
      protocol::Awaits{.number = 3, .begun_us = 9, .leases = {1, 99}},
  };
}

protocol::Granted Granted(std::size_t leases) {
  protocol::Granted granted{7, {}};
  for (std::size_t i = 0; i < leases; ++i) {
    granted.leases.push_back(
        {.lease = i + 1, .backend_pid = 4711, .parameters = {{"DateStyle", "ISO"}}});
  }
  return granted;
}

std::vector<protocol::Reply> Replies() {
  return {
      protocol::Attached{.generation = 5},
      Granted(2),
      protocol::Failed{.request = 7, .status = Status("53300", "full", "six", "more")},
      protocol::Rows{.request = 1, .rows = {{"a", std::nullopt, ""}, {}}},
      protocol::Done{.request = 3, .value = -9},
      protocol::Recall{.leases = {12, 13}},
      protocol::Cancelled{.lease = 12, .number = 3},
      protocol::Deadlocked{.number = 3, .detail = "who"},
  };
}

template <typename Message>
string Bytes(const Message& message) {
  string bytes;
  protocol::Encode(message, &bytes);
  return bytes;
}

// What happens to the bytes in front, in the order in which FuzzedDataProvider takes it: backwards.
class Steps {
 public:
  Steps& Byte(unsigned value) {
    backwards_.insert(backwards_.begin(), static_cast<char>(value));
    return *this;
  }
  // Of a range that begins at `least` and takes two bytes.
  Steps& Pair(std::size_t value, std::size_t least) {
    return Byte(static_cast<unsigned>(value - least) >> 8).Byte((value - least) & 0xFF);
  }
  // A chunk with descriptors, of which `fds` is the index in the target's table.
  Steps& Chunk(std::size_t length, unsigned fds, bool receive) {
    return Pair(length, 1).Byte(fds).Byte(receive ? 1 : 0);
  }
  const string& bytes() const { return backwards_; }

 private:
  string backwards_;
};

class Seeds {
 public:
  explicit Seeds(std::filesystem::path root) : root_(std::move(root)) {}

  void Write(const string& target, const string& bytes) {
    std::filesystem::create_directories(root_ / target);
    std::ofstream file(root_ / target / ("seed" + std::to_string(++count_)), std::ios::binary);
    if (!(file << bytes).flush()) {
      std::cerr << "could not write seeds below " << root_ << "\n";
      std::exit(1);
    }
  }

 private:
  const std::filesystem::path root_;
  int count_ = 0;
};

void WriteFrames(Seeds* seeds) {
  string requests, replies;
  Steps ask, answer, say;
  for (const protocol::Request& request : Requests()) {
    const string frame = Bytes(request);
    seeds->Write("frames", frame);
    seeds->Write("session_stream", frame + Steps().Chunk(frame.size(), 5, true).bytes());
    requests += frame;
    ask.Chunk(frame.size() - 3, 0, false).Chunk(3, 6, true);
    say.Byte(5).Pair(frame.size(), 1);
  }
  for (const protocol::Reply& reply : Replies()) {
    const string frame = Bytes(reply);
    const bool granted = std::holds_alternative<protocol::Granted>(reply);
    seeds->Write("frames", frame);
    seeds->Write("client_stream",
                 frame + Steps().Chunk(frame.size(), granted ? 7 : 0, true).bytes());
    replies += frame;
    answer.Chunk(3, granted ? 7 : 0, true).Chunk(frame.size() - 3, 0, false);
    say.Byte(5).Pair(frame.size(), 1);
  }
  seeds->Write("session_stream", requests + ask.bytes());
  seeds->Write("client_stream", replies + answer.bytes());
  seeds->Write("conversation", requests + replies + say.bytes());

  // More leases than descriptors in one message, and a reply of more than one buffer.
  const string many = Bytes(protocol::Reply(Granted(503)));
  seeds->Write(
      "client_stream",
      many +
          Steps().Chunk(1, 13, false).Chunk(1, 15, true).Chunk(many.size() - 2, 0, false).bytes());
  seeds->Write("conversation", Steps().Byte(4).Pair(600, 0).Pair(20000, 0).Byte(1).Byte(3).bytes());
}

// --- a datanode's messages ----------------------------------------------------------------------

string Message(char type, const string& body) {
  const std::size_t length = body.size() + 4;
  return string(1, type) + '\0' + '\0' + static_cast<char>(length >> 8) +
         static_cast<char>(length & 0xFF) + body;
}

string Parameter(const string& name, const string& value) {
  return Message('S', name + '\0' + value + '\0');
}

string Error(const string& sqlstate, const string& location) {
  return Message('E', string("SFATAL\0VFATAL\0C", 15) + sqlstate + string("\0Mno\0F", 6) + "a.c" +
                          string("\0L1\0R", 5) + location + string("\0\0", 2));
}

const string kReady = Message('Z', "I");

string Row(const string& value) {
  const string column = string("x\0", 2) + string(4, '\0') + string(2, '\0') +
                        string("\0\0\0\x19", 4) + string(2, '\xff') + string(4, '\xff') +
                        string(2, '\0');
  return Message('T', string("\0\x01", 2) + column) +
         Message('D', string("\0\x01\0\0\0", 5) + static_cast<char>(value.size()) + value) +
         Message('C', string("SELECT 1\0", 9));
}

string Demand(char what, const string& more = "") {
  return Message('R', string(3, '\0') + what + more);
}

void WriteDatanode(Seeds* seeds) {
  const string key = Message('K', string("\0\0\x10\0\0\0\0\1", 8));
  const string start = Demand(0) + Parameter("server_version", "15.6") +
                       Parameter("client_encoding", "UTF8") + Parameter("DateStyle", "ISO, MDY") +
                       Parameter("TimeZone", "UTC") + key + kReady;
  const string done = Message('C', string("DISCARD ALL\0", 12)) + kReady;
  const auto send = [](std::size_t length) { return Steps().Byte(8).Pair(length, 1); };
  const auto write = [&](const string& bytes, const Steps& steps) {
    seeds->Write("datanode", bytes + steps.bytes());
  };
  for (const string& first :
       {start, Demand(3) + start, Demand(5, "salt") + start,
        Demand(10, string("SCRAM-SHA-256\0\0", 15)), Demand(3), Error("28P01", "auth_failed"),
        Error("53300", "CheckMyDatabase"), Message('v', string(8, '\0')) + start, string("N")}) {
    write(first, send(first.size()));
  }
  const string row = Row("UTC") + kReady;
  const string reset = done + row + Row("ISO") + kReady + row;
  write(start + reset, send(start.size()).Byte(0).Byte(8).Pair(reset.size(), 1).Byte(6));
  write(start + row, send(start.size()).Byte(2).Byte(8).Pair(row.size(), 1));
  const string failed = Error("57014", "ProcessInterrupts") + kReady;
  write(start + failed,
        send(start.size()).Byte(3).Byte(1).Byte(4).Byte(8).Pair(failed.size(), 1).Byte(5));
  const string odd = Error("XX", "nowhere") + kReady;
  write(start + odd, send(start.size()).Byte(1).Byte(8).Pair(odd.size(), 1));
  const string empty = Message('T', string(2, '\0')) + Message('D', string(2, '\0')) +
                       Message('C', string("SELECT 1\0", 9)) + kReady;
  const string no_column = done + empty + empty + empty;
  write(start + no_column, send(start.size()).Byte(0).Byte(8).Pair(no_column.size(), 1));
  const string copy = Message('H', string(3, '\0')) + Message('A', string("\0\0\0\1c\0p\0", 8));
  write(start + copy, send(start.size()).Byte(1).Byte(8).Pair(copy.size(), 1).Byte(7));
}

}  // namespace
}  // namespace polarx

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: fuzz_seeds DIRECTORY\n";
    return 2;
  }
  polarx::Seeds seeds(argv[1]);
  polarx::WriteFrames(&seeds);
  polarx::WriteDatanode(&seeds);
  return 0;
}
