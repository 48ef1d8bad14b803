// A backend sends frames to the pooler worker and waits for replies; on its only thread.
#include <algorithm>
#include <chrono>
#include <utility>
#include <variant>

#include "core/protocol.h"
#include "core/time.h"
#include "engine/busy_wait.h"
#include "engine/pooler_client.h"

#include "pg/session/attachment.h"
#include "pg/session/leases.h"
#include "pg/session/waits.h"
#include "pg/prelude.h"

namespace polarx {
namespace {

constexpr int kSocketPosition = 2;  // in the wait set
constexpr int kSendLimitMs = 1000;
constexpr int kLongestWaitMs = 60'000;

// The time left of `deadline` for one wait, rounded up.
long WaitTime(TimePoint deadline) { return MillisecondsUntil(deadline, kLongestWaitMs); }

uint32 RequestOf(const protocol::Reply& reply) {
  struct Visitor {
    uint32 operator()(const protocol::Attached&) const { return 0; }
    uint32 operator()(const protocol::Granted& granted) const { return granted.request; }
    uint32 operator()(const protocol::Failed& failed) const { return failed.request; }
    uint32 operator()(const protocol::Rows& rows) const { return rows.request; }
    uint32 operator()(const protocol::Done& done) const { return done.request; }
    uint32 operator()(const protocol::Recall&) const { return 0; }
    uint32 operator()(const protocol::Cancelled&) const { return 0; }
    uint32 operator()(const protocol::Deadlocked&) const { return 0; }
  };
  return std::visit(Visitor{}, reply);
}

PolarxLease* FindLease(const Attachment* attachment, uint64 id) {
  PolarxLease* lease = ClientLeases();
  while (lease != nullptr && (lease->attachment != attachment->number || lease->id != id)) {
    lease = lease->next;
  }
  return lease;
}

// What is said unasked is heeded; there is nothing to be done about late replies.
void HeedUnasked(Attachment* attachment, const protocol::Reply& reply) {
  if (const auto* recall = std::get_if<protocol::Recall>(&reply)) {
    for (const uint64 id : recall->leases) {
      if (PolarxLease* lease = FindLease(attachment, id); lease != nullptr) {
        LeaseRecall(lease);
      }
    }
  } else if (const auto* through = std::get_if<protocol::Cancelled>(&reply)) {
    PolarxLease* lease = FindLease(attachment, through->lease);
    if (lease != nullptr && lease->connection.cancel == through->number) {
      lease->connection.cancelled = false;
    }
  } else if (const auto* deadlock = std::get_if<protocol::Deadlocked>(&reply)) {
    attachment->deadlock = *deadlock;
  }
}

enum class ReplyState { kReply, kFailed, kNothing, kGone };

// Looks for the reply to `request`; replies to requests that were given up go, and with them the
// descriptors they brought.
ReplyState TakeReply(Attachment* attachment, uint32 request, ErrorText* error) noexcept {
  try {
    if (!attachment->channel.Flush().ok()) {
      return ReplyState::kGone;
    }
    for (;;) {
      Result<std::optional<ClientReply>> received = attachment->channel.Receive();
      if (!received.ok()) {
        return ReplyState::kGone;
      }
      if (!received.value().has_value()) {
        return ReplyState::kNothing;
      }
      ClientReply& reply = *received.value();
      if (std::holds_alternative<protocol::Recall>(reply.reply) ||
          std::holds_alternative<protocol::Cancelled>(reply.reply) ||
          std::holds_alternative<protocol::Deadlocked>(reply.reply) ||
          RequestOf(reply.reply) != request) {
        HeedUnasked(attachment, reply.reply);
        continue;
      }
      attachment->pending = 0;
      if (const auto* failed = std::get_if<protocol::Failed>(&reply.reply)) {
        KeepError(failed->status, error);
        return ReplyState::kFailed;
      }
      attachment->reply = std::move(reply);
      return ReplyState::kReply;
    }
  } catch (...) {
    KeepOutOfMemory(error);  // part of the reply is lost, so nothing can follow it
    ClientHangUp();
    return ReplyState::kFailed;
  }
}

BusyPoll busy_poll;  // of waits for replies
bool corked = false;
bool corked_several = false;

// Returns false if the pooler is gone, or does not read; then this backend has hung up.
bool FlushWhole(Attachment* attachment) noexcept {
  bool sent = attachment->channel.Flush().ok();
  const TimePoint deadline = Now() + std::chrono::milliseconds(kSendLimitMs);
  while (sent && attachment->channel.HasUnsent()) {
    sent = ClientWaitSocket(attachment->channel.fd(), WL_SOCKET_WRITEABLE,
                            MillisecondsUntil(deadline), false) &&
           Now() < deadline && attachment->channel.Flush().ok();
  }
  if (!sent) {
    ClientHangUp();
  }
  return sent;
}

}  // namespace

uint32 ClientNextRequest() noexcept {
  static uint32 last = 0;
  return ++last != 0 ? last : ++last;
}

bool ClientSend(const protocol::Request& request) noexcept {
  Attachment* attachment = ClientAttachment();
  if (attachment == nullptr) {
    return false;
  }
  try {
    attachment->channel.Queue(request);
    return corked || FlushWhole(attachment);
  } catch (...) {
    ClientHangUp();  // part of the frame may have gone out, so nothing can follow it
    return false;
  }
}

void ClientCork(bool several) noexcept {
  corked = true;
  corked_several = several;
}

bool ClientCorkedSeveral() noexcept { return corked && corked_several; }

void ClientUncork() noexcept {
  corked = false;
  if (Attachment* attachment = ClientAttachment();
      attachment != nullptr && attachment->channel.HasUnsent()) {
    (void)FlushWhole(attachment);
  }
}

void ClientHeedRecalls() noexcept {
  Attachment* attachment = ClientAttachment();
  while (attachment != nullptr) {
    try {
      const Result<std::optional<ClientReply>> received = attachment->channel.Receive();
      if (received.ok() && received.value().has_value()) {
        HeedUnasked(attachment, received.value()->reply);
        continue;
      }
      if (received.ok()) {
        return;
      }
    } catch (...) {
      // What has come is lost with the channel.
    }
    ClientHangUp();
    return;
  }
}

AwaitResult ClientAwait(uint32 request, TimePoint deadline, ErrorText* error) {
  Attachment* attachment = ClientAttachment();
  attachment->pending = request;
  for (bool first = true;; first = false) {
    // The request has just gone out, so its reply is not there yet, unless it went with an attach.
    const bool wait = first && request != 0 && !attachment->channel.HasUnsent() &&
                      !attachment->channel.HasUnread() &&
                      !WaitBusily(attachment->channel.fd(), &busy_poll);
    switch (wait ? ReplyState::kNothing : TakeReply(attachment, request, error)) {
      case ReplyState::kReply:
        return AwaitResult::kReply;
      case ReplyState::kFailed:
        return AwaitResult::kFailed;
      case ReplyState::kGone:
        ClientHangUp();
        return AwaitResult::kGone;
      case ReplyState::kNothing:
        break;
    }
    if (deadline != kNever && Now() >= deadline) {
      return AwaitResult::kTimeout;
    }
    ModifyWaitEvent(
        attachment->wait_set, kSocketPosition,
        WL_SOCKET_READABLE | (attachment->channel.HasUnsent() ? WL_SOCKET_WRITEABLE : 0), nullptr);
    WaitEvent event;
    if (WaitEventSetWait(attachment->wait_set, WaitTime(deadline), &event, 1,
                         WaitEventOf(Wait::kPoolerReply)) == 1 &&
        (event.events & WL_LATCH_SET) != 0) {
      ResetLatch(MyLatch);
    }
    CHECK_FOR_INTERRUPTS();
  }
}

}  // namespace polarx
