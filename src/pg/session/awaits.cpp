// Long waits for datanodes are told to the pooler worker here; in a backend, on its only thread.
#include <algorithm>
#include <utility>

#include "core/protocol.h"
#include "core/time.h"

#include "pg/session/attachment.h"
#include "pg/session/awaits.h"
#include "pg/session/waits.h"
#include "pg/prelude.h"

namespace polarx {
namespace {

// Of the wait that was told; 0: none was.
uint32 told = 0;

}  // namespace

void ClientTellAwaits(PolarxLease* const* leases, int count) noexcept {
  static uint32 last = 0;
  try {
    protocol::Awaits awaits;
    last = std::max<uint32>(last + 1, 1);
    awaits.number = last;
    awaits.begun_us = static_cast<BegunAt>(GetCurrentTransactionStartTimestamp());
    for (int i = 0; i < count; ++i) {
      if (ClientLeaseCurrent(leases[i])) {
        awaits.leases.push_back(leases[i]->id);
      }
    }
    told = !awaits.leases.empty() && ClientSend(awaits) ? awaits.number : 0;
  } catch (...) {
    told = 0;  // nobody looks for circles then
  }
}

void ClientTellAwaited() noexcept {
  if (std::exchange(told, 0) != 0) {
    (void)ClientSend(protocol::Awaits{});
  }
}

char* ClientDeadlock() {
  const Attachment* attachment = ClientAttachment();
  return attachment != nullptr && told != 0 && attachment->deadlock.number == told
             ? pstrdup(attachment->deadlock.detail.c_str())
             : nullptr;
}

}  // namespace polarx
