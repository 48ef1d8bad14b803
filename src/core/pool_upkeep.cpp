// What the pools are: settings, catalog, and the round of maintenance; on the main thread.
#include <algorithm>
#include <cassert>

#include "core/pool_book.h"

namespace polarx {

Limits PoolBook::LimitsOf(const NodeDefinition& definition) const {
  const auto pick = [](int own, int general) { return own >= 0 ? own : general; };
  return {.max_size = pick(definition.max_pool_size, settings_.max_pool_size),
          .min_size = pick(definition.min_pool_size, settings_.min_pool_size),
          .min_free = pick(definition.min_free_size, settings_.min_free_size)};
}

void PoolBook::Apply(const Settings& settings, TimePoint now) {
  const bool times_changed = upkeep_.Apply(settings);
  sizer_.Apply(settings);
  const bool warmup_changed = settings.warmup_query != settings_.warmup_query;
  settings_ = settings;
  for (auto& [id, slot] : slots_.all()) {
    if (times_changed && slot->state != SlotState::kConnecting) {
      slots_.SetExpiring(slot, false);
      upkeep_.SetTimes(slot);
    }
    upkeep_.Arm(*slot);
  }
  for (auto& [id, pool] : pools_) {
    if (warmup_changed) {
      pool->warmup_failed = false;
      pool->warmup_blocked_until = TimePoint{};
    }
  }
  for (auto& [id, node] : nodes_) {
    node->limits = LimitsOf(node->definition);
    node->fill_blocked_until = TimePoint{};
    MarkNode(node.get());
  }
  Maintain(now);
}

Node* PoolBook::FindNode(NodeId node) {
  const auto found = nodes_.find(node);
  return found == nodes_.end() ? nullptr : found->second.get();
}

const MappingEntry* PoolBook::FindMapping(NodeId node, RoleId role) const {
  const auto found = mappings_.find({node, role});
  return found == mappings_.end() ? nullptr : &found->second;
}

Pool* PoolBook::PoolFor(Node* node, const MappingDefinition& mapping) {
  const auto key = std::make_pair(node->definition.id, mapping.options);
  if (const auto found = by_options_.find(key); found != by_options_.end()) {
    return found->second;
  }
  ConnectGate::ForgetFailures(node);
  auto pool = std::make_unique<Pool>(next_pool_++, node, mapping);
  Pool* result = pool.get();
  pools_.emplace(result->id, std::move(pool));
  by_options_.emplace(key, result);
  node->pools.push_back(result);
  return result;
}

Node* PoolBook::Define(const NodeDefinition& definition) {
  std::unique_ptr<Node>& node = nodes_[definition.id];
  if (node == nullptr) {
    node = std::make_unique<Node>();
    node->paused = all_paused_ || paused_.contains(definition.id);
    if (const auto found = survivors_.find(definition.id); found != survivors_.end()) {
      node->survivors = found->second;
    }
    leases_.AllotNodeCell(node.get());
    Publish(node.get());
  } else if (node->definition.host != definition.host ||
             node->definition.hostaddr != definition.hostaddr ||
             node->definition.port != definition.port) {
    ConnectGate::ForgetWhatIsKnown(node.get());
  }
  node->definition = definition;
  node->limits = LimitsOf(definition);
  node->obsolete = false;
  MarkNode(node.get());
  return node.get();
}

void PoolBook::AddMapping(const NodeDefinition* definition, MappingDefinition mapping) {
  MappingEntry entry;
  if (mapping.status.ok()) {
    Node* node = definition != nullptr ? Define(*definition) : FindNode(mapping.node);
    assert(node != nullptr && node->definition.id == mapping.node);
    entry.pool = PoolFor(node, mapping);
    const MappingEntry* known = FindMapping(mapping.node, mapping.role);
    if (known == nullptr || known->pool != entry.pool) {
      entry.pool->mapped_roles.push_back(mapping.role_name);
    }
    MarkDirty(entry.pool);
  }
  mapping.options.clear();  // the pool has them: no second copy of a secret
  const MappingKey key{mapping.node, mapping.role};
  entry.definition = std::move(mapping);
  mappings_[key] = std::move(entry);
}

void PoolBook::SetCatalog(const std::vector<NodeDefinition>& nodes,
                          std::vector<MappingDefinition> mappings, TimePoint now) {
  for (auto& [id, node] : nodes_) {
    node->obsolete = true;
  }
  for (const NodeDefinition& definition : nodes) {
    Define(definition);
  }
  mappings_.clear();
  for (auto& [id, pool] : pools_) {
    pool->mapped_roles.clear();
  }
  for (MappingDefinition& mapping : mappings) {
    AddMapping(nullptr, std::move(mapping));
  }
  for (auto& [id, pool] : pools_) {
    if (pool->mapped_roles.empty() && !pool->obsolete) {
      Retire(pool.get(), now);
    }
  }
  some_obsolete_ = true;
  DoomUnfit(now);
  Rebind(now);
  CloseAboveLimits(now);
}

// A role may no longer hold what it was given before.
void PoolBook::DoomUnfit(TimePoint now) {
  std::vector<Slot*> unfit;
  for (auto& [lease, slot] : leases_.all()) {
    const MappingEntry* entry = FindMapping(slot->pool->node->definition.id, slot->lease.role);
    if (entry == nullptr || entry->pool != slot->pool ||
        (entry->definition.restricted && !slot->connection.password_used)) {
      unfit.push_back(slot);
    }
  }
  for (Slot* slot : unfit) {
    Doom(slot, CloseReason::kObsolete, now);
  }
}

// Nothing leads to the pool any more: what is idle closes, what is lent closes at release.
void PoolBook::Retire(Pool* pool, TimePoint now) {
  pool->obsolete = true;
  by_options_.erase({pool->node->definition.id, pool->options});
  DoomAll(pool, CloseReason::kObsolete, now);
  MarkDirty(pool);
}

// Tickets that wait for retired pools go to the pools that their mappings lead to now.
void PoolBook::Rebind(TimePoint now) {
  std::vector<Ticket*> stranded;
  for (auto& [id, ticket] : queue_.all()) {
    if (std::any_of(ticket->wants.begin(), ticket->wants.end(), [this](const Ticket::Want& want) {
          const MappingEntry* entry = FindMapping(want.node, want.role);
          return entry == nullptr || entry->pool != want.pool ||
                 entry->definition.restricted != want.restricted;
        })) {
      stranded.push_back(ticket.get());
    }
  }
  for (Ticket* ticket : stranded) {
    Status status;
    for (const Ticket::Want& want : ticket->wants) {
      const MappingEntry* entry = FindMapping(want.node, want.role);
      if (entry == nullptr || entry->pool == nullptr) {
        status = entry != nullptr
                     ? entry->definition.status
                     : Status(sqlstate::kUndefinedObject,
                              "datanode \"" + want.pool->node->definition.name +
                                  "\" was dropped while a connection to it was waited for");
        break;
      }
    }
    if (!status.ok()) {
      RejectTicket(ticket, status);
      continue;
    }
    queue_.Rebind(ticket, now, [&] {
      for (Ticket::Want& want : ticket->wants) {
        const MappingEntry* entry = FindMapping(want.node, want.role);
        MarkDirty(want.pool);
        want.pool = entry->pool;
        want.restricted = entry->definition.restricted;
        MarkDirty(want.pool);
      }
    });
  }
}

// Retired pools and nodes go when their last slot is closed.
void PoolBook::DropEmpty() {
  some_obsolete_ = false;
  for (auto entry = pools_.begin(); entry != pools_.end();) {
    Pool* pool = entry->second.get();
    if (pool->obsolete && pool->total() == 0 && pool->queue.empty() && !pool->dirty) {
      sleepers_.Remove(pool->id);
      gate_.Forget(*pool);
      std::erase(pool->node->pools, pool);
      entry = pools_.erase(entry);
    } else {
      some_obsolete_ |= pool->obsolete;
      ++entry;
    }
  }
  std::erase_if(nodes_, [this](const auto& entry) {
    const Node& node = *entry.second;
    const bool gone = node.obsolete && node.pools.empty();
    if (gone) {
      leases_.FreeNodeCell(node);
    }
    return gone;
  });
}

}  // namespace polarx
