// When a connection may be opened, and what a failed attempt proves; on the main thread.
#include "core/connect_gate.h"

#include <algorithm>
#include <cassert>
#include <utility>

namespace polarx {
namespace {

// A connection that ends sooner, and was never lent, was no connection.
Duration LastingTime(const Node& node) {
  return std::max<Duration>(std::chrono::seconds(1), 2 * node.connect_time);
}

bool IsLoginRefused(const std::string& sqlstate) {
  return sqlstate.starts_with("28") || sqlstate == "3D000";
}

}  // namespace

Duration ConnectGate::UsualConnectTime(const Node& node) {
  constexpr Duration kShortest = std::chrono::milliseconds(5);
  constexpr Duration kLongest = std::chrono::seconds(1);
  return std::clamp(node.connect_time, kShortest, kLongest);
}

bool ConnectGate::IsHeldOff(const Pool& pool, TimePoint now) {
  const HoldOff* hold_off = pool.ProvenHoldOff();
  return hold_off != nullptr && !hold_off->Permits(now);
}

// Could an attempt show by now whether the trouble is over, and none is under way?
bool ConnectGate::IsProbeDue(const Pool& pool, const HoldOff& hold_off, TimePoint now) {
  const bool whole_node = &hold_off == &pool.node->hold_off;
  const int under_way =
      whole_node ? pool.node->count(SlotState::kConnecting) : pool.count(SlotState::kConnecting);
  return hold_off.Permits(now) && under_way == 0 && (whole_node || pool.trial_until <= now);
}

ConnectVerdict ConnectGate::Ask(const Pool& pool, ConnectPurpose purpose, TimePoint now) const {
  const Node& node = *pool.node;
  const bool for_request = purpose == ConnectPurpose::kRequest;
  for (const HoldOff* hold_off : {&std::as_const(node.hold_off), &pool.hold_off}) {
    if ((for_request ? hold_off->proven() : hold_off->active()) &&
        !IsProbeDue(pool, *hold_off, now)) {
      return {ConnectVerdict::kRefused, hold_off};
    }
  }
  const int of_node = node.count(SlotState::kConnecting);
  const int of_pool = pool.count(SlotState::kConnecting);
  const bool others_wait = node.waiting > static_cast<int>(pool.queue.size());
  const bool unattended = !for_request && pool.login_refused;
  if (pool.obsolete || node.paused || node.total() >= node.limits.max_size || unattended ||
      of_node >= kParallelConnects || (others_wait && of_pool >= kParallelConnects / 2) ||
      (node.hold_off.Crowded(now) ? of_node > 0 : pool.hold_off.Crowded(now) && of_pool > 0)) {
    return {ConnectVerdict::kLater, nullptr};
  }
  return {ConnectVerdict::kOpen, nullptr};
}

void ConnectGate::OnConnected(Pool* pool, Duration took, TimePoint now) {
  assert(took >= Duration::zero());
  Node* node = pool->node;
  Duration& usual = node->connect_time;
  usual = usual == Duration::zero() ? took : (3 * usual + took) / 4;
  pool->login_refused = false;
  Recover(node);
  if (pool->died_unused && pool->hold_off.active()) {
    pool->trial_until = now + LastingTime(*node);
    retries_.SetEarlier(pool->id, pool->trial_until);
  } else {
    Recover(pool);
  }
}

void ConnectGate::OnOrdered(Slot* slot) {
  assert(slot->state == SlotState::kConnecting);
  slot->connection.pool_waited = !slot->pool->queue.empty();
  slot->connection.node_waited = slot->pool->node->waiting > 0;
}

void ConnectGate::OnConnectFailed(const Slot& slot, const Status& status, FailureScope scope,
                                  TimePoint now) {
  assert(!status.ok());
  Pool* pool = slot.pool;
  Node* node = pool->node;
  switch (scope) {
    case FailureScope::kNode:
      FailNode(node, status, now);
      if (slot.connection.node_waited) {
        node->hold_off.Prove();
      }
      return;
    case FailureScope::kPool:
      Recover(node);
      pool->login_refused |= IsLoginRefused(status.sqlstate());
      break;
    case FailureScope::kSelf:
      if (node->hold_off.active()) {
        node->hold_off.Postpone(now);  // the attempt has told nothing of it
        AwaitRetry(*node, now);
      }
      break;
  }
  pool->died_unused = false;
  pool->trial_until = TimePoint{};
  FailPool(pool, status, now);
  if (slot.connection.pool_waited) {
    pool->hold_off.Prove();
  }
}

bool ConnectGate::OnEnded(const Slot& slot, const std::string& why, TimePoint now) {
  Pool* pool = slot.pool;
  if (slot.age.leases > 0 || slot.state == SlotState::kConnecting || pool->obsolete ||
      slot.doomed != CloseReason::kNone || now - slot.age.created_at >= LastingTime(*pool->node)) {
    return false;
  }
  pool->died_unused = true;
  pool->trial_until = TimePoint{};
  FailPool(pool,
           Status(sqlstate::kConnectionFailed,
                  "could not connect to datanode \"" + pool->node->definition.name +
                      "\": a new connection ended before it was used",
                  why.empty() ? "" : "It ended with: " + why),
           now);
  if (slot.connection.pool_waited) {
    pool->hold_off.Prove();
  }
  return true;
}

void ConnectGate::OnLent(Pool* pool) {
  if (pool->died_unused) {
    Recover(pool);
  }
}

void ConnectGate::EndTrial(Pool* pool, TimePoint now) {
  if (pool->trial_until != TimePoint{} && pool->trial_until <= now) {
    Recover(pool);
  } else if (pool->trial_until > now) {
    retries_.SetEarlier(pool->id, pool->trial_until);
  }
  AwaitRetry(*pool, now);  // another hold-off of it may last longer
}

void ConnectGate::OnPing(Node* node, bool up, const Status& status, TimePoint now) {
  // That it answers does not mean that it has room for another connection.
  if (!up) {
    FailNode(node, status, now);
  } else if (!node->hold_off.active() || !node->hold_off.status().sqlstate().starts_with("53")) {
    Recover(node);
  }
}

void ConnectGate::FailNode(Node* node, const Status& status, TimePoint now) {
  node->known_up = false;
  if (!node->hold_off.Permits(now)) {
    return;  // an attempt from before the failure that is known
  }
  if (node->hold_off.Fail(status, now, Jitter())) {
    surroundings_->Log(status.message(), status.detail());
  }
  AwaitRetry(*node, now);
}

void ConnectGate::FailPool(Pool* pool, const Status& status, TimePoint now) {
  if (!pool->hold_off.Permits(now)) {
    return;  // likewise
  }
  if (pool->hold_off.Fail(status, now, Jitter())) {
    surroundings_->Log(status.message(), status.detail());
  }
  AwaitRetry(*pool, now);
}

void ConnectGate::Recover(Node* node) {
  node->known_up = true;
  if (node->hold_off.Clear()) {
    surroundings_->Log("datanode \"" + node->definition.name + "\" can be reached again", "");
  }
}

void ConnectGate::Recover(Pool* pool) {
  pool->died_unused = false;
  pool->trial_until = TimePoint{};
  if (!pool->hold_off.Clear()) {
    return;
  }
  const std::string user = "remote user \"" + pool->remote_user + "\"";
  const bool own = pool->hold_off.status().sqlstate() == sqlstate::kOutOfDescriptors;
  surroundings_->Log(
      "datanode \"" + pool->node->definition.name +
          (own ? "\" is connected to again as " + user : "\" lets " + user + " in again"),
      "");
}

void ConnectGate::AwaitRetry(const Node& node, TimePoint now) {
  for (const Pool* pool : node.pools) {
    AwaitRetry(*pool, now);
  }
}

// At the first moment at which a connect may be tried again the pool is looked at.
void ConnectGate::AwaitRetry(const Pool& pool, TimePoint now) {
  for (const HoldOff* hold_off : {&std::as_const(pool.node->hold_off), &pool.hold_off}) {
    if (hold_off->active() && hold_off->retry_at() > now) {
      retries_.SetEarlier(pool.id, hold_off->retry_at());
    }
  }
}

}  // namespace polarx
