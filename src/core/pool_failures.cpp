// What a failed attempt, a ping and a success tell of a node or pool; on the main thread.
#include <algorithm>
#include <utility>

#include "core/pool_book.h"

namespace polarx {

// Did a request that the hold-off concerns wait when the failed attempt began?
void PoolBook::ProveByTicket(Pool* pool, TimePoint began) {
  const auto asked = [began](const Pool* other) {
    return !other->queue.empty() && other->queue.front()->arrived_at <= began;
  };
  Node* node = pool->node;
  if (node->hold_off.active()) {
    if (std::any_of(node->pools.begin(), node->pools.end(), asked)) {
      node->hold_off.Prove();
    }
  } else if (asked(pool)) {
    pool->hold_off.Prove();
  }
}

void PoolBook::Fail(Pool* pool, const Status& status, FailureScope scope, TimePoint now) {
  Node* node = pool->node;
  if (scope == FailureScope::kNode) {
    FailNode(node, status, now);
    return;
  }
  if (scope == FailureScope::kPool) {
    RecoverNode(node);  // it answered
  } else if (node->hold_off.active()) {
    node->hold_off.Postpone(now);  // nothing more is known of it
    SleepUntilRetry(*node, now);
    return;
  }
  if (!pool->hold_off.Permits(now)) {
    return;  // an attempt from before the failure that is known
  }
  if (pool->hold_off.Fail(status, now, Jitter())) {
    surroundings_->Log(status.message(), status.detail());
  }
  SleepUntilRetry(*pool, now);
}

void PoolBook::FailNode(Node* node, const Status& status, TimePoint now) {
  node->known_up = false;
  if (!node->hold_off.Permits(now)) {
    return;  // an attempt from before the failure that is known
  }
  if (node->hold_off.Fail(status, now, Jitter())) {
    surroundings_->Log(status.message(), status.detail());
  }
  SleepUntilRetry(*node, now);
}

void PoolBook::SleepUntilRetry(const Node& node, TimePoint now) {
  for (const Pool* pool : node.pools) {
    SleepUntilRetry(*pool, now);
  }
}

// At the first moment at which a connect may be tried again the pool is looked at.
void PoolBook::SleepUntilRetry(const Pool& pool, TimePoint now) {
  for (const HoldOff* hold_off : {&std::as_const(pool.node->hold_off), &pool.hold_off}) {
    if (hold_off->active() && hold_off->retry_at() > now) {
      sleepers_.SetEarlier(pool.id, hold_off->retry_at());
    }
  }
}

void PoolBook::RecoverNode(Node* node) {
  node->known_up = true;
  if (node->hold_off.Clear()) {
    surroundings_->Log("datanode \"" + node->definition.name + "\" can be reached again", "");
    MarkNode(node);
  }
}

void PoolBook::OnPing(NodeId id, bool up, double milliseconds, const Status& status,
                      TimePoint now) {
  Node* node = FindNode(id);
  if (node == nullptr) {
    return;
  }
  if (up) {
    node->ping_ms = milliseconds;
    // That it answers does not mean that it has room for another connection.
    if (!node->hold_off.active() || !node->hold_off.status().sqlstate().starts_with("53")) {
      RecoverNode(node);
    }
  } else {
    FailNode(node, status, now);
  }
}

}  // namespace polarx
