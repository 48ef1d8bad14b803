// What the book-keeping orders of the worker threads, what comes back; on the main thread.
#include <sys/socket.h>

#include <cerrno>
#include <cstdlib>
#include <stdexcept>

#include "engine/memory_check.h"
#include "engine/pooler_impl.h"

namespace polarx {
namespace {

// So long, resets that are in no hurry wait: a worker thread is woken once for several, and not at
// the same time as the session that has just got its answer.
constexpr Duration kResetsWait = std::chrono::microseconds(300);

}  // namespace

// --- orders -------------------------------------------------------------------------------------

void Pooler::Impl::Connect(Slot* slot) {
  const Settings& settings = book_.settings();
  const NodeDefinition& definition = slot->pool->node->definition;
  const std::string& node = definition.name;
  // Node by node in turn: else the connections of one node could all meet on one thread.
  const auto [turn, is_new] = next_worker_.try_emplace(definition.id, first_worker_);
  first_worker_ += is_new ? 1 : 0;
  slot->connection.thread = static_cast<int>(turn->second++ % workers_.size());
  if (const auto needed = static_cast<std::size_t>(FdsUsed()); lent_.capacity() < needed) {
    lent_.reserve(2 * needed);  // more than there are connections
  }
  Send(*slot, ConnectOrder{.slot = slot->id,
                           .node_name = node,
                           .options = slot->pool->options,
                           .deadline = Now() + settings.pooler_connect_timeout,
                           .timeout = settings.pooler_connect_timeout});
}

void Pooler::Impl::RunOn(Slot* slot, RunKind kind, std::vector<std::string> statements,
                         std::vector<std::string> verify, std::string measure, bool first_sent) {
  const std::chrono::seconds timeout = book_.settings().pooler_dn_set_timeout;
  const TimePoint due = kind == RunKind::kReset ? Now() + kResetsWait : TimePoint{};
  Send(*slot,
       RunOrder{.slot = slot->id,
                .kind = kind,
                .statements = std::move(statements),
                .first_sent = first_sent,
                .verify = std::move(verify),
                .measure = std::move(measure),
                .deadline = Now() + timeout,
                .timeout = timeout},
       due);
}

void Pooler::Impl::Warm(Slot* slot) {
  RunOn(slot, RunKind::kWarm, {book_.settings().warmup_query});
}

void Pooler::Impl::Reset(Slot* slot, ResetWork work) {
  std::vector<std::string> statements;
  if (work.kind == protocol::ReleaseKind::kInTransaction) {
    statements.emplace_back("ROLLBACK");
  }
  statements.push_back(book_.settings().reset_query);
  if (work.measure) {
    measured_.insert(slot->id);
  }
  RunOn(slot, RunKind::kReset, std::move(statements), std::move(work.verify),
        work.measure ? MeasureStatement(slot->pool->memory_source) : "",
        work.kind == protocol::ReleaseKind::kResetSent);
}

void Pooler::Impl::Measure(Slot* slot) {
  measured_.insert(slot->id);
  RunOn(slot, RunKind::kMemory, {}, {}, MeasureStatement(slot->pool->memory_source));
}

// A run that was to end with a measure has ended well.
void Pooler::Impl::TakeMeasure(Slot* slot, const RunDone& done, TimePoint now) {
  Pool* pool = slot->pool;
  if (AsksForSource(pool->memory_source)) {
    pool->memory_source = MemorySourceOf(done.value.value_or(""));
    if (!AsksForSource(pool->memory_source)) {
      Measure(slot);
      return;
    }
    book_.OnMeasured(slot, std::nullopt, now);
  } else if (!done.value.has_value()) {
    pool->memory_source = MemorySource::kUnknown;  // a right or the extension is gone
    book_.OnMeasured(slot, std::nullopt, now);
  } else {
    book_.OnMeasured(slot, std::strtoll(done.value->c_str(), nullptr, 10), now);
  }
}

void Pooler::Impl::LongLease(const Slot& slot, Duration held) {
  long_leases_.push_back({.node = slot.pool->node->definition.name,
                          .remote_user = slot.pool->remote_user,
                          .session_pid = SessionPid(slot.lease.session),
                          .remote_pid = slot.connection.remote_pid,
                          .seconds = std::chrono::duration<double>(held).count()});
}

void Pooler::Impl::Close(Slot* slot) {
  // Its borrower could not leave it in order: a statement may be running.
  const bool unknown = slot->doomed == CloseReason::kRequested;
  Send(*slot, CloseOrder{.slot = slot->id,
                         .cancel = unknown,
                         .deadline = Now() + book_.settings().pooler_dn_set_timeout});
}

// Anything that can be read from an idle connection, its end included, makes it unfit.
bool Pooler::Impl::LooksAlive(const Slot& slot) {
  char byte;
  const ssize_t got = recv(slot.connection.socket, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return got < 0 && (errno == EAGAIN || errno == EINTR);
}

void Pooler::Impl::Log(const std::string& message, const std::string& detail) {
  log_.Push(LogSeverity::kLog, message, detail);
}

// --- completions --------------------------------------------------------------------------------

void Pooler::Impl::Complete(TimePoint now) {
  for (Completion& completion : arrived_) {
    std::visit([&](auto& done) { On(done, now); }, completion);
  }
  arrived_.clear();
}

void Pooler::Impl::On(ThreadFailed& done, TimePoint) {
  throw std::runtime_error("worker thread failed: " + done.why);
}

void Pooler::Impl::On(Connected& done, TimePoint now) {
  if (Slot* slot = book_.FindSlot(done.slot); slot != nullptr) {
    slot->connection.socket = done.socket;
    slot->connection.remote_pid = done.remote_pid;
    slot->connection.password_used = done.password_used;
    slot->connection.parameters = parameter_sets_.Intern(std::move(done.parameters));
    book_.OnConnected(slot, now);
  }
}

void Pooler::Impl::On(ConnectFailed& done, TimePoint now) {
  if (Slot* slot = book_.FindSlot(done.slot); slot != nullptr) {
    const FailureScope scope =
        done.pool_limit ? FailureScope::kPool : ScopeOfFailure(done.status.sqlstate(), done.reach);
    book_.OnConnectFailed(slot, done.status, scope, now);
  }
}

void Pooler::Impl::On(RunDone& done, TimePoint now) {
  Slot* slot = book_.FindSlot(done.slot);
  if (slot == nullptr) {
    return;
  }
  if (done.kind == RunKind::kPing) {
    FinishSlotPing(*slot, done, now);
  }
  const bool measured = measured_.erase(slot->id) > 0;
  if (slot->state != SlotState::kWarming && slot->state != SlotState::kResetting &&
      slot->state != SlotState::kChecking) {
    return;
  }
  if (done.status.ok()) {
    if (done.parameters.has_value()) {
      slot->connection.parameters = parameter_sets_.Intern(std::move(*done.parameters));
    }
    if (measured) {
      TakeMeasure(slot, done, now);
    } else {
      book_.OnReady(slot, now);
    }
  } else if (done.kind == RunKind::kWarm) {
    const bool lost = done.status.sqlstate() == sqlstate::kConnectionLost && !done.in_transaction;
    book_.OnWarmupFailed(slot, done.status.message(), lost, now);
  } else {
    book_.OnBroken(
        slot,
        (done.kind == RunKind::kReset ? "pooler.reset_query failed: " : "") + done.status.message(),
        now);
  }
}

void Pooler::Impl::On(HungUp& done, TimePoint now) {
  if (Slot* slot = book_.FindSlot(done.slot); slot != nullptr) {
    book_.OnBroken(slot, done.why, now);
  }
}

void Pooler::Impl::On(Closed& done, TimePoint) {
  if (Slot* slot = book_.FindSlot(done.slot); slot != nullptr) {
    book_.OnClosed(slot, done.timed_out);
  }
}

void Pooler::Impl::On(Pinged& done, TimePoint now) {
  FinishPing(done.ping, done.status, done.milliseconds, now);
}

}  // namespace polarx
