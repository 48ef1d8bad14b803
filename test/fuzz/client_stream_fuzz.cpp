// Fuzz target: what comes to a session's process from the pooler's socket, in chunks of any size
// and with descriptors in any number and place. A reply is as it was sent, or the channel ends; and
// a lease's descriptor came with the bytes of its own reply, else a session would talk to
// another's.
#include <fuzzer/FuzzedDataProvider.h>
#include <sys/resource.h>

#include <algorithm>

#include "streams.h"

namespace polarx {
namespace {

using fuzz::Require;

// While it lives the process can have only `more` descriptors beyond those it has.
class ScarceDescriptors {
 public:
  explicit ScarceDescriptors(std::optional<unsigned> more) {
    Require(::getrlimit(RLIMIT_NOFILE, &before_) == 0, "getrlimit");
    if (more.has_value()) {
      rlimit scarce = before_;
      const UniqueFd next(::dup(fuzz::SharedFiles().Get(0)));
      scarce.rlim_cur = static_cast<rlim_t>(next.get()) + *more;
      Require(next && ::setrlimit(RLIMIT_NOFILE, &scarce) == 0, "setrlimit");
    }
  }
  ~ScarceDescriptors() { (void)::setrlimit(RLIMIT_NOFILE, &before_); }

 private:
  rlimit before_{};
};

class Stream {
 public:
  Stream() : Stream(listener().Connect()) {}
  static const fuzz::ClientListener& listener() {
    static const fuzz::ClientListener listener;
    return listener;
  }

  void Send(std::string_view chunk, std::size_t fd_count) {
    fd_count = std::min(fd_count, kMostFds - files_.size());
    std::vector<int> fds;
    for (std::size_t i = 0; i < fd_count; ++i) {
      fds.push_back(fuzz::SharedFiles().Get(files_.size() + i));
    }
    while (!chunk.empty() && end_.ok()) {
      const std::size_t sent = fuzz::SendChunk(pooler_.get(), chunk, fds);
      if (sent == 0) {
        Receive(std::nullopt);
        continue;
      }
      files_.resize(files_.size() + fds.size(), {sent_.size(), sent_.size() + sent});
      sent_.append(chunk.substr(0, sent));
      chunk.remove_prefix(sent);
      fds.clear();
    }
  }

  // Takes all replies that have come.
  void Receive(std::optional<unsigned> descriptors) {
    const ScarceDescriptors scarce(descriptors);
    scarce_ = scarce_ || descriptors.has_value();
    while (end_.ok()) {
      Result<std::optional<ClientReply>> reply = client_.Receive();
      if (!reply.ok()) {
        end_ = reply.status();
      } else if (reply.value().has_value()) {
        Compare(*reply.value());
      } else {
        return;
      }
    }
  }

  void Finish() {
    pooler_.Reset();
    Receive(std::nullopt);
    const std::string_view rest = std::string_view(sent_).substr(at_);
    if (end_.sqlstate() == sqlstate::kOutOfDescriptors) {
      Require(scarce_, "53000 only where descriptors are scarce");
    } else if (end_.sqlstate() == sqlstate::kConnectionLost) {
      Require(!NextFrame().has_value(), "every whole reply is delivered before the end of file");
    } else {
      Require(end_.sqlstate() == sqlstate::kProtocolViolation, "the end has its reason");
      const Result<std::size_t> length = protocol::FrameLength(rest, protocol::kMaxReplySize);
      const std::optional<protocol::Reply> next = NextFrame();
      Require(!length.ok() || !next.has_value() || !WellPlaced(*next, length.value()) ||
                  NamesSets(*next),
              "a good reply is no violation");
    }
  }

 private:
  // All of them together are no scarcity yet where the soft limit is the usual 1024.
  static constexpr std::size_t kMostFds = 700;

  struct Place {  // of the chunk that a descriptor went with
    std::size_t begin, end;
  };

  explicit Stream(std::pair<PoolerClient, UniqueFd> ends)
      : client_(std::move(ends.first)), pooler_(std::move(ends.second)) {}

  // The next whole frame that is none of the client's yet; no alternative's value: it is damaged.
  std::optional<protocol::Reply> NextFrame() const {
    const std::string_view rest = std::string_view(sent_).substr(at_);
    const Result<std::size_t> length = protocol::FrameLength(rest, protocol::kMaxReplySize);
    if (!length.ok() || length.value() == 0 || length.value() > rest.size()) {
      return std::nullopt;
    }
    Result<protocol::Reply> reply = protocol::DecodeReply(rest.substr(0, length.value()));
    return reply.ok() ? std::optional(std::move(reply.value())) : std::nullopt;
  }

  static std::size_t Leases(const protocol::Reply& reply) {
    const auto* granted = std::get_if<protocol::Granted>(&reply);
    return granted == nullptr ? 0 : granted->leases.size();
  }

  // Of parameter values, as sent before: the client may not know them.
  static bool NamesSets(const protocol::Reply& reply) {
    const auto* granted = std::get_if<protocol::Granted>(&reply);
    return granted != nullptr &&
           std::any_of(granted->leases.begin(), granted->leases.end(),
                       [](const protocol::GrantedLease& lease) { return lease.told; });
  }

  // Have exactly this reply's descriptors come with chunks inside its bytes?
  bool WellPlaced(const protocol::Reply& reply, std::size_t length) const {
    std::size_t count = 0;
    for (std::size_t i = taken_; i < files_.size() && files_[i].begin < at_ + length; ++i) {
      if (files_[i].begin < at_ || files_[i].end > at_ + length) {
        return false;
      }
      ++count;
    }
    return count == Leases(reply);
  }

  // Values that were sent are with the reply; where they were named beside, they are dropped.
  void Compare(ClientReply& reply) {
    std::string bytes;
    if (auto* granted = std::get_if<protocol::Granted>(&reply.reply)) {
      for (std::size_t i = 0; i < granted->leases.size(); ++i) {
        if (!granted->leases[i].told) {
          granted->leases[i].parameters = reply.parameters.at(i)->values;
        }
      }
    }
    protocol::Encode(reply.reply, &bytes);
    Require(std::string_view(sent_).substr(at_, bytes.size()) == bytes,
            "a reply is as it was sent");
    Require(reply.fds.size() == Leases(reply.reply), "a descriptor for each lease, and no other");
    for (const UniqueFd& fd : reply.fds) {
      Require(taken_ < files_.size(), "no descriptor comes from nowhere");
      Require(fuzz::SharedFiles().Is(fd, taken_), "descriptors keep their order");
      Require(files_[taken_].begin < at_ + bytes.size() && files_[taken_].end > at_,
              "a descriptor belongs to the reply it came with");
      ++taken_;
    }
    at_ += bytes.size();
  }

  PoolerClient client_;
  UniqueFd pooler_;
  Status end_;
  bool scarce_ = false;
  std::string sent_;
  std::vector<Place> files_;  // of all descriptors sent
  std::size_t at_ = 0;        // bytes that replies were made of
  std::size_t taken_ = 0;     // descriptors that came with them
};

}  // namespace
}  // namespace polarx

// The bytes that are sent stand in front, how they are sent at the end.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  constexpr std::size_t kFdCounts[] = {0, 0, 0, 0, 0, 1, 1, 2, 2, 3, 7, 16, 100, 250, 251, 253};
  (void)polarx::fuzz::SharedFiles();
  (void)polarx::Stream::listener();
  const polarx::fuzz::DescriptorsKept kept;
  FuzzedDataProvider input(data, size);
  polarx::Stream stream;
  while (input.remaining_bytes() > 0) {
    const auto length = input.ConsumeIntegralInRange<std::size_t>(1, 40000);
    const std::size_t fds = input.PickValueInArray(kFdCounts);
    const auto then = input.ConsumeIntegral<std::uint8_t>();
    stream.Send(input.ConsumeBytesAsString(length), fds);
    if (then % 2 != 0) {
      const bool scarce = then > 0xF0;
      stream.Receive(scarce ? std::optional(then % 8u) : std::nullopt);
    }
  }
  stream.Finish();
  return 0;
}
