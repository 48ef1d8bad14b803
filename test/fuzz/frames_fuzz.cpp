// Fuzz target: bytes as frames of both directions. What can be decoded becomes the same bytes
// again.
#include <cstring>

#include "fuzz.h"
#include "core/protocol.h"

namespace polarx::protocol {
namespace {

using fuzz::Require;

std::string WithLength(std::string frame) {
  for (std::size_t i = 0; i < 4; ++i) {
    frame[i] = static_cast<char>(frame.size() >> (8 * (3 - i)));
  }
  return frame;
}

void CheckLength(std::string_view bytes, std::size_t limit) {
  const Result<std::size_t> length = FrameLength(bytes, limit);
  if (bytes.size() < 4) {
    Require(length.ok() && length.value() == 0, "no length before four bytes have come");
  } else if (length.ok()) {
    Require(length.value() >= kHeaderSize && length.value() <= limit, "a length within its limits");
  } else {
    Require(length.status().sqlstate() == sqlstate::kProtocolViolation, "a bad length is 08P01");
  }
}

// Every message has one form in bytes: so decoding what was encoded anew is stable as well.
template <typename Message>
bool CheckDecode(const std::string& frame, Result<Message> (*decode)(std::string_view)) {
  const Result<Message> message = decode(frame);
  if (!message.ok()) {
    Require(message.status().sqlstate() == sqlstate::kProtocolViolation, "a bad frame is 08P01");
    return false;
  }
  std::string encoded = "before";
  Encode(message.value(), &encoded);
  Require(encoded.compare(6, std::string::npos, frame) == 0, "encode(decode(x)) is x");
  const Result<std::size_t> length = FrameLength(frame, kMaxReplySize);
  Require(length.ok() && length.value() == frame.size(), "FrameLength is the frame's size");
  Require(!decode(std::string_view(frame).substr(0, frame.size() - 1)).ok(), "cut off is refused");
  if (frame.size() > kHeaderSize) {
    Require(!decode(WithLength(frame.substr(0, frame.size() - 1))).ok(), "shorter is refused");
  }
  Require(!decode(WithLength(frame + '\0')).ok(), "longer is refused");
  return true;
}

void CheckFrame(const std::string& frame) {
  const bool request = CheckDecode<Request>(frame, DecodeRequest);
  const bool reply = CheckDecode<Reply>(frame, DecodeReply);
  Require(!request || !reply, "no reply is taken for a request");
}

}  // namespace
}  // namespace polarx::protocol

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  namespace protocol = polarx::protocol;
  const std::string bytes(polarx::fuzz::Text(data, size));
  protocol::CheckLength(bytes, protocol::kMaxRequestSize);
  protocol::CheckLength(bytes, protocol::kMaxReplySize);
  protocol::CheckFrame(bytes);
  if (size >= 4) {
    protocol::CheckFrame(protocol::WithLength(bytes));
  }
  return 0;
}
