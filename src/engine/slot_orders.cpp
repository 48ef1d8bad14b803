// Orders for slots go out here, and completions come in; on the main thread.
#include "engine/slot_orders.h"

#include <sys/socket.h>

#include <cassert>
#include <cerrno>
#include <cstdlib>
#include <utility>

#include "core/urgency.h"
#include "engine/memory_check.h"

namespace polarx {

// --- orders -------------------------------------------------------------------------------------

void SlotOrders::Connect(Slot* slot) {
  const std::chrono::seconds timeout = book_->settings().pooler_connect_timeout;
  const NodeDefinition& node = slot->pool->node->definition;
  slot->connection.thread = fleet_->AddConnection(node.id);
  budget_->Take();
  const bool is_new =
      connections_.emplace(slot->id, Connection{.node = node.id, .thread = slot->connection.thread})
          .second;
  assert(is_new);
  (void)is_new;
  fleet_->Send(slot->connection.thread, ConnectOrder{.slot = slot->id,
                                                     .node_name = node.name,
                                                     .options = slot->pool->options,
                                                     .deadline = Now() + timeout,
                                                     .timeout = timeout});
}

void SlotOrders::RunOn(Slot* slot, RunOrder order) {
  order.slot = slot->id;
  order.timeout = book_->settings().pooler_dn_set_timeout;
  const TimePoint now = Now();
  order.deadline = now + order.timeout;
  const TimePoint due = order.kind == RunKind::kReset ? now + kResetsMayWait : TimePoint{};
  connections_.at(slot->id).measures = !order.measure.empty();
  fleet_->Send(slot->connection.thread, std::move(order), due);
}

void SlotOrders::Warm(Slot* slot) {
  RunOrder order;
  order.kind = RunKind::kWarm;
  order.statements.push_back(book_->settings().warmup_query);
  RunOn(slot, std::move(order));
}

void SlotOrders::Reset(Slot* slot, ResetWork work) {
  RunOrder order;
  order.kind = RunKind::kReset;
  if (work.kind == protocol::ReleaseKind::kInTransaction) {
    order.statements.emplace_back("ROLLBACK");
  }
  order.statements.push_back(book_->settings().reset_query);
  order.first_sent = work.kind == protocol::ReleaseKind::kResetSent;
  order.verify = std::move(work.verify);
  if (work.measure) {
    order.measure = MeasureStatement(slot->pool->memory_source);
  }
  RunOn(slot, std::move(order));
}

void SlotOrders::Measure(Slot* slot) {
  RunOrder order;
  order.kind = RunKind::kMemory;
  order.measure = MeasureStatement(slot->pool->memory_source);
  RunOn(slot, std::move(order));
}

void SlotOrders::Close(Slot* slot) {
  // Its borrower could not leave it in order: a statement may be running.
  const bool unknown = slot->doomed == CloseReason::kRequested;
  fleet_->Send(slot->connection.thread,
               CloseOrder{.slot = slot->id,
                          .cancel = unknown,
                          .deadline = Now() + book_->settings().pooler_dn_set_timeout});
}

bool SlotOrders::LooksAlive(const Slot& slot) {
  char byte;
  const ssize_t got = recv(slot.connection.socket, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return got < 0 && (errno == EAGAIN || errno == EINTR);
}

void SlotOrders::Cancel(const Slot& slot, std::uint32_t number, TimePoint now) {
  assert(slot.state == SlotState::kLeased);
  fleet_->Send(slot.connection.thread,
               CancelOrder{.slot = slot.id,
                           .deadline = now + book_->settings().pooler_dn_set_timeout,
                           .lease = slot.lease.id,
                           .number = number});
}

void SlotOrders::Ping(Slot* slot, PingId ping) {
  assert(slot->state == SlotState::kChecking && ping != 0);
  connections_.at(slot->id).ping = ping;
  RunOrder order;
  order.kind = RunKind::kPing;
  order.statements.emplace_back();
  RunOn(slot, std::move(order));
}

void SlotOrders::Ask(Slot* slot, AskId ask, std::string statement) {
  assert(slot->state == SlotState::kChecking && ask != 0);
  RunOrder order;
  order.kind = RunKind::kAsk;
  order.measure = std::move(statement);
  RunOn(slot, std::move(order));
  connections_.at(slot->id).ask = ask;
}

// --- completions --------------------------------------------------------------------------------

void SlotOrders::On(Connected& done, TimePoint now) {
  if (Slot* slot = book_->FindSlot(done.slot); slot != nullptr) {
    slot->connection.socket = done.socket;
    slot->connection.remote_pid = done.remote_pid;
    slot->connection.password_used = done.password_used;
    slot->connection.parameters = parameter_sets_.Intern(std::move(done.parameters));
    book_->OnConnected(slot, now);
  }
}

void SlotOrders::On(ConnectFailed& done, TimePoint now) {
  Forget(done.slot);
  if (Slot* slot = book_->FindSlot(done.slot); slot != nullptr) {
    const FailureScope scope =
        done.pool_limit ? FailureScope::kPool : ScopeOfFailure(done.status.sqlstate(), done.reach);
    book_->OnConnectFailed(slot, done.status, scope, now);
  }
}

void SlotOrders::On(RunDone& done, TimePoint now) {
  Slot* slot = book_->FindSlot(done.slot);
  const auto found = connections_.find(done.slot);
  if (slot == nullptr || found == connections_.end()) {
    return;
  }
  bool measures = std::exchange(found->second.measures, false);
  if (const PingId ping = std::exchange(found->second.ping, 0); ping != 0) {
    answers_.push_back({ping, done.status});
  }
  if (const AskId ask = std::exchange(found->second.ask, 0); ask != 0) {
    measures = false;
    values_.push_back({ask, done.value});
  }
  if (slot->state != SlotState::kWarming && slot->state != SlotState::kResetting &&
      slot->state != SlotState::kChecking) {
    return;
  }
  if (done.status.ok()) {
    if (done.parameters.has_value()) {
      slot->connection.parameters = parameter_sets_.Intern(std::move(*done.parameters));
    }
    if (measures) {
      TakeMeasure(slot, done, now);
    } else {
      book_->OnReady(slot, now);
    }
  } else if (done.kind == RunKind::kWarm) {
    const bool lost = done.status.sqlstate() == sqlstate::kConnectionLost && !done.in_transaction;
    book_->OnWarmupFailed(slot, done.status.message(), lost, now);
  } else {
    const char* what = done.kind == RunKind::kReset ? "pooler.reset_query failed: " : "";
    book_->OnBroken(slot, what + done.status.message(), now);
  }
}

// A run that was to end with a measure has ended well.
void SlotOrders::TakeMeasure(Slot* slot, const RunDone& done, TimePoint now) {
  Pool* pool = slot->pool;
  if (AsksForSource(pool->memory_source)) {
    pool->memory_source = MemorySourceOf(done.value.value_or(""));
    if (!AsksForSource(pool->memory_source)) {
      Measure(slot);
      return;
    }
    book_->OnMeasured(slot, std::nullopt, now);
  } else if (!done.value.has_value()) {
    pool->memory_source = MemorySource::kUnknown;  // a right or the extension is gone
    book_->OnMeasured(slot, std::nullopt, now);
  } else {
    book_->OnMeasured(slot, std::strtoll(done.value->c_str(), nullptr, 10), now);
  }
}

void SlotOrders::On(HungUp& done, TimePoint now) {
  if (Slot* slot = book_->FindSlot(done.slot); slot != nullptr) {
    book_->OnBroken(slot, done.why, now);
  }
}

void SlotOrders::On(Closed& done, TimePoint /*now*/) {
  Forget(done.slot);
  if (Slot* slot = book_->FindSlot(done.slot); slot != nullptr) {
    book_->OnClosed(slot, done.timed_out);
  }
}

// The connection is gone, and a ping that went over it has its answer.
void SlotOrders::Forget(SlotId slot) {
  const auto found = connections_.find(slot);
  if (found == connections_.end()) {
    return;
  }
  const Connection connection = found->second;
  connections_.erase(found);
  fleet_->RemoveConnection(connection.node, connection.thread);
  budget_->GiveBack();
  if (connection.ping != 0) {
    answers_.push_back(
        {connection.ping, Status(sqlstate::kConnectionLost, "the connection was closed")});
  }
  if (connection.ask != 0) {
    values_.push_back({connection.ask, std::nullopt});
  }
}

}  // namespace polarx
