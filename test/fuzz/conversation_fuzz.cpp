// Fuzz target: both ends of the pooler's socket talk to each other over narrow buffers. Whatever
// the messages are and whoever reads when, all of them arrive, in order and with their descriptors.
#include <fuzzer/FuzzedDataProvider.h>

#include <deque>

#include "engine/session.h"
#include "streams.h"

namespace polarx {
namespace {

using fuzz::Require;

class Conversation {
 public:
  Conversation() : Conversation(listener().Connect()) {}
  static const fuzz::ClientListener& listener() {
    static const fuzz::ClientListener listener;
    return listener;
  }

  void Ask(const protocol::Request& request) {
    asked_.push_back(Bytes(request));
    Require(client_.Send(request).ok(), "a request can be sent");
  }
  void Answer(protocol::Reply reply) {
    std::vector<int> fds;
    if (auto* granted = std::get_if<protocol::Granted>(&reply)) {
      for (protocol::GrantedLease& lease : granted->leases) {
        lease.told = false;  // a set that was not sent ends the conversation
        fds.push_back(fuzz::SharedFiles().Get(fds_sent_++));
      }
    }
    answered_.push_back(Bytes(reply));
    session_.Send(reply, std::move(fds));
  }

  void SessionReads() {
    std::vector<protocol::Request> requests;
    Require(session_.Receive(&requests).ok(), "the session goes on");
    for (const protocol::Request& request : requests) {
      Require(!asked_.empty() && Bytes(request) == asked_.front(), "requests arrive in order");
      asked_.pop_front();
    }
  }
  void SessionWrites() { Require(session_.Flush().ok(), "replies can be sent"); }
  void ClientWrites() { Require(client_.Flush().ok(), "requests can be sent"); }
  // One reply. False: none has come whole.
  bool ClientReads() {
    Result<std::optional<ClientReply>> reply = client_.Receive();
    Require(reply.ok(), "the client goes on");
    if (!reply.value().has_value()) {
      return false;
    }
    ClientReply& got = *reply.value();
    auto* granted = std::get_if<protocol::Granted>(&got.reply);
    Require(got.parameters.size() == (granted == nullptr ? 0 : granted->leases.size()),
            "parameter values for each lease");
    for (std::size_t i = 0; i < got.parameters.size(); ++i) {
      granted->leases[i].parameters = got.parameters[i]->values;
    }
    Require(!answered_.empty() && Bytes(got.reply) == answered_.front(), "replies arrive in order");
    answered_.pop_front();
    Require(got.fds.size() == (granted == nullptr ? 0 : granted->leases.size()),
            "a descriptor for each lease");
    for (const UniqueFd& fd : got.fds) {
      Require(fuzz::SharedFiles().Is(fd, fds_got_++), "every lease gets its own descriptor");
    }
    return true;
  }

  void Finish() {
    for (int rounds = 0; !asked_.empty() || !answered_.empty(); ++rounds) {
      Require(rounds < 10000, "everything arrives");
      ClientWrites();
      SessionReads();
      SessionWrites();
      while (ClientReads()) {
      }
    }
    Require(!client_.HasUnsent() && !session_.HasUnsent(), "nothing is left");
  }

 private:
  explicit Conversation(std::pair<PoolerClient, UniqueFd> ends)
      : client_(std::move(ends.first)),
        session_(1, std::move(ends.second), ::getpid(), TimePoint{}) {
    fuzz::MakeNarrow(client_.fd());
    fuzz::MakeNarrow(session_.socket.get());
  }

  template <typename Message>
  static std::string Bytes(const Message& message) {
    std::string bytes;
    protocol::Encode(message, &bytes);
    return bytes;
  }

  PoolerClient client_;
  Session session_;
  std::deque<std::string> asked_, answered_;  // and not yet received
  std::size_t fds_sent_ = 0, fds_got_ = 0;
};

// A frame of either direction is sent from its end; another piece is nothing.
void Say(std::string frame, Conversation* conversation) {
  for (std::size_t i = 0; i < 4 && frame.size() >= 4; ++i) {
    frame[i] = static_cast<char>(frame.size() >> (8 * (3 - i)));
  }
  if (const auto request = protocol::DecodeRequest(frame); request.ok()) {
    conversation->Ask(request.value());
  } else if (const auto reply = protocol::DecodeReply(frame); reply.ok()) {
    conversation->Answer(reply.value());
  }
}

protocol::Granted Grant(std::size_t leases, std::size_t text) {
  protocol::Granted granted{7, {}};
  for (std::size_t i = 0; i < leases; ++i) {
    granted.leases.push_back({.lease = i + 1, .backend_pid = 100});
  }
  if (leases > 0) {
    granted.leases.back().parameters = {{"TimeZone", std::string(text, 'x')}};
  }
  return granted;
}

}  // namespace
}  // namespace polarx

// The frames stand in front, how they are sent at the end.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  (void)polarx::fuzz::SharedFiles();
  (void)polarx::Conversation::listener();
  const polarx::fuzz::DescriptorsKept kept;
  FuzzedDataProvider input(data, size);
  polarx::Conversation conversation;
  while (input.remaining_bytes() > 0) {
    switch (input.ConsumeIntegralInRange(0, 6)) {
      case 0:
        conversation.SessionReads();
        break;
      case 1:
        conversation.SessionWrites();
        break;
      case 2:
        conversation.ClientWrites();
        break;
      case 3:
        (void)conversation.ClientReads();
        break;
      case 4: {
        const auto leases = input.ConsumeIntegralInRange<std::size_t>(0, 600);
        const auto text = input.ConsumeIntegralInRange<std::size_t>(0, 20000);
        conversation.Answer(polarx::Grant(leases, text));
        break;
      }
      default: {
        const auto length = input.ConsumeIntegralInRange<std::size_t>(1, 40000);
        polarx::Say(input.ConsumeBytesAsString(length), &conversation);
      }
    }
  }
  conversation.Finish();
  return 0;
}
