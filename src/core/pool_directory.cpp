// Which nodes and pools there are, and who is led to which; on the main thread.
#include "core/pool_directory.h"

#include <algorithm>
#include <cassert>

namespace polarx {

Limits PoolDirectory::LimitsOf(const NodeDefinition& definition) const {
  const auto pick = [](int own, int general) { return own >= 0 ? own : general; };
  return {.max_size = pick(definition.max_pool_size, limits_.max_size),
          .min_size = pick(definition.min_pool_size, limits_.min_size),
          .min_free = pick(definition.min_free_size, limits_.min_free)};
}

void PoolDirectory::Apply(const Settings& settings) {
  limits_ = {settings.max_pool_size, settings.min_pool_size, settings.min_free_size};
  for (auto& [id, node] : nodes_) {
    node->limits = LimitsOf(node->definition);
  }
}

// --- the catalog --------------------------------------------------------------------------------

Node* PoolDirectory::Define(const NodeDefinition& definition, Changes* changes) {
  std::unique_ptr<Node>& node = nodes_[definition.id];
  if (node == nullptr) {
    node = std::make_unique<Node>();
    node->paused = all_paused_ || paused_.contains(definition.id);
    if (const auto found = survivors_.find(definition.id); found != survivors_.end()) {
      node->survivors = found->second;
    }
    changes->added.push_back(node.get());
  } else if (node->definition.host != definition.host ||
             node->definition.hostaddr != definition.hostaddr ||
             node->definition.port != definition.port) {
    changes->moved.push_back(node.get());
  }
  node->definition = definition;
  node->limits = LimitsOf(definition);
  node->obsolete = false;
  return node.get();
}

Pool* PoolDirectory::PoolFor(Node* node, const MappingDefinition& mapping, Changes* changes) {
  Pool*& pool = by_options_[{node->definition.id, mapping.options}];
  if (pool == nullptr) {
    auto made = std::make_unique<Pool>(next_pool_++, node, mapping);
    pool = made.get();
    pools_.emplace(pool->id, std::move(made));
    node->pools.push_back(pool);
    changes->opened.push_back(pool);
  }
  assert(!pool->obsolete && pool->node == node && pool->options == mapping.options);
  return pool;
}

void PoolDirectory::Enter(MappingDefinition mapping, Changes* changes) {
  MappingEntry& entry = mappings_[{mapping.node, mapping.role}];
  Pool* pool = nullptr;
  if (mapping.status.ok()) {
    Node* node = FindNode(mapping.node);
    assert(node != nullptr && !node->obsolete);
    pool = PoolFor(node, mapping, changes);
  }
  if (pool != entry.pool && entry.pool != nullptr) {
    std::erase(entry.pool->mapped_roles, entry.definition.role_name);
  }
  if (pool != entry.pool && pool != nullptr) {
    pool->mapped_roles.push_back(mapping.role_name);
  }
  mapping.options.clear();  // the pool has them: no second copy of a secret
  entry = {std::move(mapping), pool};
}

PoolDirectory::Changes PoolDirectory::AddMapping(const NodeDefinition* node,
                                                 MappingDefinition mapping) {
  Changes changes;
  if (node != nullptr && mapping.status.ok()) {
    assert(node->id == mapping.node);
    Define(*node, &changes);
  }
  Enter(std::move(mapping), &changes);
  return changes;
}

PoolDirectory::Changes PoolDirectory::SetCatalog(const std::vector<NodeDefinition>& nodes,
                                                 std::vector<MappingDefinition> mappings) {
  Changes changes;
  for (auto& [id, node] : nodes_) {
    node->obsolete = true;
  }
  for (const NodeDefinition& definition : nodes) {
    Define(definition, &changes);
  }
  mappings_.clear();
  for (auto& [id, pool] : pools_) {
    pool->mapped_roles.clear();
  }
  for (MappingDefinition& mapping : mappings) {
    Enter(std::move(mapping), &changes);
  }
  RetireUnmapped(&changes);
  std::erase_if(uses_, [this](const auto& use) {
    const Node* node = FindNode(use.first.node);
    const MappingEntry* entry = FindMapping(use.first.node, use.first.role);
    return node == nullptr || node->obsolete || entry == nullptr ||
           entry->definition.role_name.empty();
  });
  return changes;
}

void PoolDirectory::RetireUnmapped(Changes* changes) {
  for (auto& [id, pool] : pools_) {
    if (pool->mapped_roles.empty() && !pool->obsolete) {
      pool->obsolete = true;
      by_options_.erase({pool->node->definition.id, pool->options});
      changes->retired.push_back(pool.get());
    }
    assert(pool->obsolete == pool->mapped_roles.empty());
  }
  has_retired_ = true;
}

std::vector<std::unique_ptr<Pool>> PoolDirectory::TakeEmptyPools() {
  std::vector<std::unique_ptr<Pool>> taken;
  std::set<Node*> nodes;
  has_retired_ = false;
  for (auto entry = pools_.begin(); entry != pools_.end();) {
    std::unique_ptr<Pool>& pool = entry->second;
    if (pool->obsolete && pool->total() == 0 && pool->queue.empty() && !pool->dirty) {
      nodes.insert(pool->node);
      taken.push_back(std::move(pool));
      entry = pools_.erase(entry);
    } else {
      has_retired_ |= pool->obsolete;
      ++entry;
    }
  }
  for (Node* node : nodes) {
    std::erase_if(node->pools, [&](const Pool* pool) { return !pools_.contains(pool->id); });
  }
  return taken;
}

std::vector<std::unique_ptr<Node>> PoolDirectory::TakeEmptyNodes() {
  std::vector<std::unique_ptr<Node>> taken;
  for (auto entry = nodes_.begin(); entry != nodes_.end();) {
    if (entry->second->obsolete && entry->second->pools.empty()) {
      taken.push_back(std::move(entry->second));
      entry = nodes_.erase(entry);
    } else {
      ++entry;
    }
  }
  return taken;
}

// --- pauses, survivors, known roles -------------------------------------------------------------

std::vector<Node*> PoolDirectory::SetPaused(NodeId which, bool paused) {
  if (which == 0) {
    all_paused_ = paused;
    paused_.clear();
  } else if (paused) {
    paused_.insert(which);
  } else {
    paused_.erase(which);
  }
  std::vector<Node*> concerned;
  for (auto& [id, node] : nodes_) {
    if (which == 0 || id == which) {
      node->paused = paused;
      concerned.push_back(node.get());
    }
  }
  return concerned;
}

std::vector<Node*> PoolDirectory::SetSurvivors(const std::map<NodeId, int>& survivors) {
  std::vector<Node*> changed;
  survivors_ = survivors;
  for (auto& [id, node] : nodes_) {
    const auto found = survivors_.find(id);
    const int count = found == survivors_.end() ? 0 : found->second;
    if (std::exchange(node->survivors, count) != count) {
      changed.push_back(node.get());
    }
  }
  return changed;
}

std::vector<MappingQuestion> PoolDirectory::KnownPairs(TimePoint now) {
  std::vector<MappingQuestion> known;
  std::erase_if(uses_, [now](const auto& use) { return now - use.second >= kForgetAfter; });
  for (const auto& [pair, used_at] : uses_) {
    known.push_back(pair);
  }
  return known;
}

// --- look-ups -----------------------------------------------------------------------------------

const MappingEntry* PoolDirectory::FindMapping(NodeId node, RoleId role) const {
  const auto found = mappings_.find({node, role});
  return found == mappings_.end() ? nullptr : &found->second;
}

Node* PoolDirectory::FindNode(NodeId node) const {
  const auto found = nodes_.find(node);
  return found == nodes_.end() ? nullptr : found->second.get();
}

Pool* PoolDirectory::FindPool(PoolId pool) const {
  const auto found = pools_.find(pool);
  return found == pools_.end() ? nullptr : found->second.get();
}

bool PoolDirectory::Matches(std::span<const NodeDefinition> nodes) const {
  const auto members = std::count_if(nodes_.begin(), nodes_.end(), [](const auto& entry) {
    return !entry.second->obsolete && entry.second->definition.member;
  });
  return members == static_cast<std::ptrdiff_t>(nodes.size()) &&
         std::all_of(nodes.begin(), nodes.end(), [this](const NodeDefinition& wanted) {
           const Node* node = FindNode(wanted.id);
           return node != nullptr && !node->obsolete && node->definition == wanted;
         });
}

}  // namespace polarx
