// What the pools are: settings, catalog, and the round of maintenance; on the main thread.
#include <algorithm>
#include <utility>

#include "core/pool_book.h"

namespace polarx {

void PoolBook::Apply(const Settings& settings, TimePoint now) {
  const bool times_changed = upkeep_.Apply(settings);
  sizer_.Apply(settings);
  directory_.Apply(settings);
  const bool warmup_changed = settings.warmup_query != settings_.warmup_query;
  settings_ = settings;
  for (auto& [id, slot] : slots_.all()) {
    if (times_changed && slot->state != SlotState::kConnecting) {
      slots_.SetExpiring(slot, false);
      upkeep_.SetTimes(slot);
    }
    upkeep_.Arm(*slot);
  }
  for (const auto& [id, pool] : directory_.pools()) {
    if (warmup_changed) {
      pool->warmup_failed = false;
      pool->warmup_blocked_until = TimePoint{};
    }
  }
  for (const auto& [id, node] : directory_.nodes()) {
    node->fill_blocked_until = TimePoint{};
    MarkNode(node.get());
  }
  Maintain(now);
}

void PoolBook::TakeIn(const PoolDirectory::Changes& changes, TimePoint now) {
  for (Node* node : changes.added) {
    leases_.AllotNodeCell(node);
    Publish(node);
  }
  for (Node* node : changes.moved) {
    ConnectGate::ForgetWhatIsKnown(node);
  }
  for (Pool* pool : changes.opened) {
    ConnectGate::ForgetFailures(pool->node);
    MarkDirty(pool);
  }
  for (Pool* pool : changes.retired) {
    DoomAll(pool, CloseReason::kObsolete, now);
    MarkDirty(pool);
  }
}

void PoolBook::AddMapping(const NodeDefinition* node, MappingDefinition mapping, TimePoint now) {
  const MappingQuestion pair{mapping.node, mapping.role};
  TakeIn(directory_.AddMapping(node, std::move(mapping)), now);
  if (Pool* pool = directory_.FindMapping(pair.node, pair.role)->pool; pool != nullptr) {
    MarkNode(pool->node);
  }
}

void PoolBook::SetCatalog(const std::vector<NodeDefinition>& nodes,
                          std::vector<MappingDefinition> mappings, TimePoint now) {
  TakeIn(directory_.SetCatalog(nodes, std::move(mappings)), now);
  for (const auto& [id, node] : directory_.nodes()) {
    MarkNode(node.get());
  }
  DoomUnfit(now);
  Rebind(now);
  CloseAboveLimits(now);
}

// What is held or waited for is used.
std::vector<MappingQuestion> PoolBook::KnownPairs(TimePoint now) {
  for (const auto& [id, slot] : leases_.all()) {
    directory_.NoteUse({slot->pool->node->definition.id, slot->lease.role}, now);
  }
  for (const auto& [id, ticket] : queue_.all()) {
    for (const Ticket::Want& want : ticket->wants) {
      directory_.NoteUse({want.node, want.role}, now);
    }
  }
  return directory_.KnownPairs(now);
}

// A role may no longer hold what it was given before.
void PoolBook::DoomUnfit(TimePoint now) {
  std::vector<Slot*> unfit;
  for (auto& [lease, slot] : leases_.all()) {
    const MappingEntry* entry =
        directory_.FindMapping(slot->pool->node->definition.id, slot->lease.role);
    if (entry == nullptr || entry->pool != slot->pool ||
        (entry->definition.restricted && !slot->connection.password_used)) {
      unfit.push_back(slot);
    }
  }
  for (Slot* slot : unfit) {
    Doom(slot, CloseReason::kObsolete, now);
  }
}

// Tickets that wait for retired pools go to the pools that their mappings lead to now.
void PoolBook::Rebind(TimePoint now) {
  std::vector<Ticket*> stranded;
  for (auto& [id, ticket] : queue_.all()) {
    if (std::any_of(ticket->wants.begin(), ticket->wants.end(), [this](const Ticket::Want& want) {
          const MappingEntry* entry = directory_.FindMapping(want.node, want.role);
          return entry == nullptr || entry->pool != want.pool ||
                 entry->definition.restricted != want.restricted;
        })) {
      stranded.push_back(ticket.get());
    }
  }
  for (Ticket* ticket : stranded) {
    Status status;
    for (const Ticket::Want& want : ticket->wants) {
      const MappingEntry* entry = directory_.FindMapping(want.node, want.role);
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
        const MappingEntry* entry = directory_.FindMapping(want.node, want.role);
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
  for (const auto& pool : directory_.TakeEmptyPools()) {
    sleepers_.Remove(pool->id);
    gate_.Forget(*pool);
  }
  for (const auto& node : directory_.TakeEmptyNodes()) {
    leases_.FreeNodeCell(*node);
  }
}

}  // namespace polarx
