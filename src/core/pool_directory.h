// Which nodes and pools there are, which pool each role is led to on a node, and which nodes are
// paused; owned by the main thread.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "core/pool.h"
#include "core/settings.h"

namespace polarx {

struct MappingEntry {
  MappingDefinition definition;  // its options live in the pool
  Pool* pool = nullptr;          // null where the status is not ok
};

// A pool's identity is its node and its options, so that a changed option makes another pool. A
// pool that no mapping leads to is retired, and goes when it is empty. A role that a session has
// asked for on a node is known, and read again with the catalog, until nobody has asked for it in
// kForgetAfter or the role or the server is gone. It alone changes what is marked so in pool.h.
class PoolDirectory {
 public:
  static constexpr Duration kForgetAfter = std::chrono::hours(1);

  // What is new to the caller; each is listed once.
  struct Changes {
    std::vector<Node*> added;    // nodes
    std::vector<Node*> moved;    // nodes that are reached at another address
    std::vector<Pool*> opened;   // pools
    std::vector<Pool*> retired;  // pools
  };

  explicit PoolDirectory(const Settings& settings) { Apply(settings); }
  PoolDirectory(const PoolDirectory&) = delete;
  PoolDirectory& operator=(const PoolDirectory&) = delete;

  // --- what the administrator says --------------------------------------------------------------
  void Apply(const Settings& settings);
  // The whole catalog anew. A mapping whose status is ok belongs to one of the nodes.
  Changes SetCatalog(const std::vector<NodeDefinition>& nodes,
                     std::vector<MappingDefinition> mappings);
  // One mapping that was asked for; `node`: its server, null if there is none.
  Changes AddMapping(const NodeDefinition* node, MappingDefinition mapping);
  // node 0: all, those to come included. Returns the known nodes that this is about.
  std::vector<Node*> SetPaused(NodeId node, bool paused);
  // Leases that sessions hold from earlier workers, by node; all of them. Returns the known nodes
  // of which the number has changed.
  std::vector<Node*> SetSurvivors(const std::map<NodeId, int>& survivors);

  // --- known roles ------------------------------------------------------------------------------
  void NoteUse(const MappingQuestion& pair, TimePoint now) { uses_[pair] = now; }
  // Forgets those that nobody has asked for in kForgetAfter, and returns the others.
  std::vector<MappingQuestion> KnownPairs(TimePoint now);

  // --- look-ups ---------------------------------------------------------------------------------
  // Returns null if the mapping is not known: it is to be asked for.
  const MappingEntry* FindMapping(NodeId node, RoleId role) const;
  Node* FindNode(NodeId node) const;  // null: there is none
  Pool* FindPool(PoolId pool) const;  // null: there is none
  const std::map<NodeId, std::unique_ptr<Node>>& nodes() const { return nodes_; }
  const std::map<PoolId, std::unique_ptr<Pool>>& pools() const { return pools_; }
  // Are these, in any order, the nodes that "all nodes" means?
  bool Matches(std::span<const NodeDefinition> nodes) const;

  // --- what is gone -----------------------------------------------------------------------------
  bool has_retired() const { return has_retired_; }
  // The retired pools that have no slot, no request, and are not to be looked at.
  std::vector<std::unique_ptr<Pool>> TakeEmptyPools();
  // The nodes that are gone from the catalog and have no pool left.
  std::vector<std::unique_ptr<Node>> TakeEmptyNodes();

 private:
  Limits LimitsOf(const NodeDefinition& definition) const;
  Node* Define(const NodeDefinition& definition, Changes* changes);
  Pool* PoolFor(Node* node, const MappingDefinition& mapping, Changes* changes);
  void Enter(MappingDefinition mapping, Changes* changes);
  void RetireUnmapped(Changes* changes);

  Limits limits_;  // of nodes without limits of their own
  std::map<NodeId, std::unique_ptr<Node>> nodes_;
  std::map<PoolId, std::unique_ptr<Pool>> pools_;
  std::map<std::pair<NodeId, Options>, Pool*> by_options_;  // pools that are not retired
  std::map<MappingQuestion, MappingEntry> mappings_;
  std::map<MappingQuestion, TimePoint> uses_;  // the last one
  std::set<NodeId> paused_;                    // known or not
  bool all_paused_ = false;
  std::map<NodeId, int> survivors_;
  bool has_retired_ = false;  // or nodes that are gone
  PoolId next_pool_ = 1;
};

}  // namespace polarx
