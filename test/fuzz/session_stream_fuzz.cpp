// Fuzz target: what a session's process sends to the pooler worker, in chunks of any size and with
// descriptors, which it should not send. engine/Session must cut it as if it had come at once.
#include <fuzzer/FuzzedDataProvider.h>

#include "engine/session.h"
#include "streams.h"

namespace polarx {
namespace {

using fuzz::Require;

std::string Bytes(const protocol::Request& request) {
  std::string bytes;
  protocol::Encode(request, &bytes);
  return bytes;
}

class Stream {
 public:
  Stream() : Stream(fuzz::SocketPair()) {}

  // Sends the chunk unless the session is over; the session reads when its socket is full.
  void Send(std::string_view chunk, std::vector<int> fds) {
    while (!chunk.empty() && end_.ok()) {
      const std::size_t sent = fuzz::SendChunk(peer_.get(), chunk, fds);
      if (sent == 0) {
        Receive();
        continue;
      }
      sent_.append(chunk.substr(0, sent));
      chunk.remove_prefix(sent);
      fds.clear();
    }
  }
  void Receive() {
    if (end_.ok()) {
      end_ = session_.Receive(&received_);
    }
  }
  // Hangs up and compares what was received with what was sent.
  void Finish() {
    const int fds = fuzz::OpenDescriptors();
    peer_.Reset();
    while (end_.ok()) {
      Receive();
    }
    Require(fuzz::OpenDescriptors() == fds - 1, "no descriptor becomes the pooler's");

    std::size_t count = 0;
    const bool violation = Walk(&count);
    Require(received_.size() == count, "every request before the end is delivered");
    Require(
        end_.sqlstate() == (violation ? sqlstate::kProtocolViolation : sqlstate::kConnectionLost),
        "the end has its reason");
  }

 private:
  explicit Stream(std::pair<UniqueFd, UniqueFd> ends)
      : peer_(std::move(ends.first)),
        session_(1, std::move(ends.second), ::getpid(), TimePoint{}) {}

  // Counts the requests in what was sent and compares them. True: a violation follows.
  bool Walk(std::size_t* count) const {
    std::string_view rest = sent_;
    for (;; ++*count) {
      const Result<std::size_t> length = protocol::FrameLength(rest, protocol::kMaxRequestSize);
      if (!length.ok()) {
        return true;
      }
      if (length.value() == 0 || length.value() > rest.size()) {
        return false;
      }
      const std::string_view frame = rest.substr(0, length.value());
      if (!protocol::DecodeRequest(frame).ok()) {
        return true;
      }
      Require(*count < received_.size() && Bytes(received_[*count]) == frame,
              "a request is delivered as it was sent");
      rest.remove_prefix(length.value());
    }
  }

  UniqueFd peer_;
  Session session_;
  Status end_;
  std::string sent_;
  std::vector<protocol::Request> received_;
};

}  // namespace
}  // namespace polarx

// The bytes that are sent stand in front, how they are sent at the end.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  constexpr std::size_t kFdCounts[] = {0, 0, 0, 0, 0, 1, 2, 3, 7, 16, 100, 249, 250, 251, 252, 253};
  const polarx::fuzz::Files& files = polarx::fuzz::SharedFiles();
  const polarx::fuzz::DescriptorsKept kept;
  FuzzedDataProvider input(data, size);
  polarx::Stream stream;
  while (input.remaining_bytes() > 0) {
    const auto length = input.ConsumeIntegralInRange<std::size_t>(1, 40000);
    std::vector<int> fds(input.PickValueInArray(kFdCounts), files.Get(0));
    const bool receive = input.ConsumeBool();
    stream.Send(input.ConsumeBytesAsString(length), std::move(fds));
    if (receive) {
      stream.Receive();
    }
  }
  stream.Finish();
  return 0;
}
