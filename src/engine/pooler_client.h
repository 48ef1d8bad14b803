// The session's end of the socket to the pooler worker: frames out, frames and descriptors in,
// never blocking; in a backend, on its only thread. Waiting is the caller's.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/parameter_sets.h"
#include "core/protocol.h"
#include "engine/unique_fd.h"

namespace polarx {

struct ClientReply {
  protocol::Reply reply;
  // Of a Granted, one a lease:
  std::vector<UniqueFd> fds;
  std::vector<SharedParameters> parameters;
};

class PoolerClient {
 public:
  // Connects to the Unix socket at `path` (relative to the working directory; < 108 bytes) and
  // checks that the peer's process is `worker_pid` and its user our own. A Unix connect does not
  // wait, save for a full backlog: then the status is 57P03 and the caller may try again.
  static Result<std::optional<PoolerClient>> Connect(std::string_view path, int worker_pid);

  int fd() const { return socket_.get(); }

  // Queues the frame and sends what goes. An error: the pooler is gone.
  Status Send(const protocol::Request& request);
  // Queues the frame alone; Flush sends it.
  void Queue(const protocol::Request& request) { protocol::Encode(request, &out_); }
  bool HasUnsent() const { return !out_.empty(); }
  Status Flush();

  // Something has come that Receive has not returned, part of a reply at least.
  bool HasUnread() const { return !in_.empty(); }
  // Next reply that has come whole, if any. An error: the pooler is gone, or broke the protocol.
  Result<std::optional<ClientReply>> Receive();

 private:
  Result<std::optional<ClientReply>> TakeReply(std::size_t length);
  Status TakeParameters(protocol::Granted* granted, ClientReply* reply);

  UniqueFd socket_;
  std::string out_;
  std::string in_;
  struct Descriptor {
    std::size_t end;  // of the bytes of in_ that it came with
    UniqueFd fd;
  };
  std::vector<Descriptor> in_fds_;
  KnownSets known_sets_;
};

}  // namespace polarx
