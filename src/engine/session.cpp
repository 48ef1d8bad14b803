// One attached backend: bytes in, bytes and descriptors out; on the main thread.
#include "engine/session.h"

#include "engine/fd_passing.h"

namespace polarx {

Session::Session(SessionId session_id, UniqueFd connected, int peer_pid, TimePoint now)
    : id(session_id), pid(peer_pid), attached_at(now), socket(std::move(connected)) {}

Status Session::Receive(std::vector<protocol::Request>* requests) {
  // Sessions send no descriptors: what comes is closed.
  constexpr int kReadsATurn = 16;
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
  Outgoing outgoing;
  protocol::Encode(reply, &outgoing.bytes);
  outgoing.fds = std::move(fds);
  outgoing.answer = !std::holds_alternative<protocol::Recall>(reply);
  unsent_answers_ += outgoing.answer ? 1 : 0;
  out_.push_back(std::move(outgoing));
}

Status Session::Flush() {
  while (!out_.empty()) {
    Outgoing& next = out_.front();
    const Result<SendProgress> sent = SendWithFds(socket.get(), next.bytes, next.fds);
    if (!sent.ok()) {
      return sent.status();
    }
    if (sent.value().bytes == 0) {
      return Status::Ok();
    }
    next.bytes.erase(0, sent.value().bytes);
    next.fds.erase(next.fds.begin(),
                   next.fds.begin() + static_cast<std::ptrdiff_t>(sent.value().fds));
    if (next.bytes.empty()) {
      unsent_answers_ -= next.answer ? 1 : 0;
      out_.pop_front();
    }
  }
  return Status::Ok();
}

}  // namespace polarx
