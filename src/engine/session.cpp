// One attached backend: bytes in, bytes and descriptors out; on the main thread.
#include "engine/session.h"

#include <algorithm>
#include <cassert>
#include <cstddef>
#include <span>
#include <string_view>
#include <utility>

#include "engine/fd_passing.h"

namespace polarx {
namespace {

constexpr int kReadsATurn = 16;
// Larger than a socket's usual buffer, so that only who reads at the same time is sent that much.
constexpr std::size_t kBytesATurn = 256 * 1024;

}  // namespace

Session::Session(SessionId session_id, UniqueFd connected, int peer_pid, TimePoint now)
    : id(session_id), pid(peer_pid), attached_at(now), socket(std::move(connected)) {}

Status Session::Receive(std::vector<protocol::Request>* requests) {
  // Sessions send no descriptors: what comes is closed.
  Status end;
  for (int reads = 0; reads < kReadsATurn; ++reads) {
    const std::size_t before = in_.size();
    Result<ReceiveState> state = ReceiveWithFds(socket.get(), &in_, nullptr);
    if (!state.ok()) {
      end = state.status();
      break;
    }
    if (state.value() == ReceiveState::kEndOfFile) {
      end = Status(sqlstate::kConnectionLost, "session ended");
      break;
    }
    if (in_.size() - before < kReceiveSize) {
      break;  // if that was not all, the poller tells
    }
  }
  std::size_t at = 0;
  while (true) {
    const std::string_view rest = std::string_view(in_).substr(at);
    const Result<std::size_t> length = protocol::FrameLength(rest, protocol::kMaxRequestSize);
    if (!length.ok()) {
      return length.status();
    }
    if (length.value() == 0 || rest.size() < length.value()) {
      break;
    }
    Result<protocol::Request> request = protocol::DecodeRequest(rest.substr(0, length.value()));
    if (!request.ok()) {
      return request.status();
    }
    requests->push_back(std::move(request.value()));
    at += length.value();
  }
  in_.erase(0, at);
  return end;
}

void Session::Send(const protocol::Reply& reply, std::vector<int> fds) {
  const auto* granted = std::get_if<protocol::Granted>(&reply);
  assert((granted != nullptr ? granted->leases.size() : 0) == fds.size());
  Outgoing outgoing;
  protocol::Encode(reply, &outgoing.bytes);
  outgoing.fds = std::move(fds);
  outgoing.request = granted != nullptr ? granted->request : 0;
  outgoing.answer = !std::holds_alternative<protocol::Recall>(reply);
  unsent_answers_ += outgoing.answer ? 1 : 0;
  out_.push_back(std::move(outgoing));
}

void Session::SendFrame(std::string frame) {
  assert(!frame.empty());
  Outgoing outgoing;
  outgoing.bytes = std::move(frame);
  ++unsent_answers_;
  out_.push_back(std::move(outgoing));
}

Result<Session::Flushed> Session::Flush() {
  std::size_t budget = kBytesATurn;
  while (!out_.empty()) {
    Outgoing& next = out_.front();
    const std::string_view bytes = std::string_view(next.bytes).substr(next.bytes_sent, budget);
    const Result<SendProgress> sent =
        SendWithFds(socket.get(), bytes, std::span<const int>(next.fds).subspan(next.fds_sent));
    if (!sent.ok()) {
      return sent.status();
    }
    next.bytes_sent += sent.value().bytes;
    next.fds_sent += sent.value().fds;
    budget -= sent.value().bytes;
    if (next.bytes_sent == next.bytes.size()) {
      assert(next.fds_sent == next.fds.size());
      unsent_answers_ -= next.answer ? 1 : 0;
      out_.pop_front();
    } else if (sent.value().too_many_fds) {
      return Flushed::kTryLater;
    } else if (sent.value().bytes < bytes.size() || budget == 0) {
      return Flushed::kFull;
    }
    if (budget == 0 && !out_.empty()) {
      return Flushed::kFull;
    }
  }
  return Flushed::kAll;
}

// A session that numbers its requests badly is spoken of by its last one.
std::size_t Session::PlaceOfGrant(std::uint32_t request) const {
  const auto found = std::find_if(out_.rbegin(), out_.rend(), [request](const Outgoing& one) {
    return !one.fds.empty() && one.request == request;
  });
  return found == out_.rend() ? out_.size() : static_cast<std::size_t>(out_.rend() - found) - 1;
}

Session::GrantSent Session::SentOfGrant(std::uint32_t request) const {
  const std::size_t place = PlaceOfGrant(request);
  if (place == out_.size() || out_[place].fds_sent == out_[place].fds.size()) {
    return GrantSent::kAll;
  }
  return out_[place].bytes_sent == 0 ? GrantSent::kNothing : GrantSent::kSome;
}

void Session::ReplaceGrant(std::uint32_t request, const protocol::Reply& reply) {
  assert(SentOfGrant(request) == GrantSent::kNothing);
  Outgoing& grant = out_[PlaceOfGrant(request)];
  grant = Outgoing();
  protocol::Encode(reply, &grant.bytes);
}

}  // namespace polarx
