// What a change of settings or catalog means for slots and requests; on the main thread.
#include <algorithm>
#include <utility>

#include "core/pool_book.h"

namespace polarx {

void PoolBook::Apply(const Settings& settings, TimePoint now) {
  const bool times_changed = own_.upkeep.Apply(settings);
  own_.sizer.Apply(settings);
  own_.directory.Apply(settings);
  const bool warmup_changed = settings.warmup_query != own_.settings.warmup_query;
  own_.settings = settings;
  for (const auto& [id, slot] : own_.slots.all()) {
    if (times_changed && slot->state != SlotState::kConnecting) {
      own_.slots.SetExpiring(slot, false);
      own_.upkeep.SetTimes(slot);
    }
    own_.upkeep.Arm(*slot);
  }
  for (const auto& [id, pool] : own_.directory.pools()) {
    if (warmup_changed) {
      pool->warmup_failed = false;
      pool->warmup_blocked_until = TimePoint{};
    }
  }
  for (const auto& [id, node] : own_.directory.nodes()) {
    node->fill_blocked_until = TimePoint{};
    own_.dispatcher.MarkAll(*node);
  }
  Maintain(now);
}

void PoolBook::TakeIn(const PoolDirectory::Changes& changes, TimePoint now) {
  for (Node* node : changes.added) {
    own_.leases.AllotNodeCell(node);
    Supplier::Publish(node);
  }
  for (Node* node : changes.moved) {
    ConnectGate::ForgetWhatIsKnown(node);
  }
  for (Pool* pool : changes.opened) {
    ConnectGate::ForgetFailures(pool->node);
    own_.dispatcher.Mark(pool);
  }
  for (Pool* pool : changes.retired) {
    life_.DoomAll(pool, CloseReason::kObsolete, now);
    own_.dispatcher.Mark(pool);
  }
}

void PoolBook::AddMapping(const NodeDefinition* node, MappingDefinition mapping, TimePoint now) {
  const MappingQuestion pair{mapping.node, mapping.role};
  TakeIn(own_.directory.AddMapping(node, std::move(mapping)), now);
  if (const Pool* pool = own_.directory.FindMapping(pair.node, pair.role)->pool; pool != nullptr) {
    own_.dispatcher.MarkAll(*pool->node);
  }
}

void PoolBook::SetCatalog(const std::vector<NodeDefinition>& nodes,
                          std::vector<MappingDefinition> mappings, TimePoint now) {
  TakeIn(own_.directory.SetCatalog(nodes, std::move(mappings)), now);
  for (const auto& [id, node] : own_.directory.nodes()) {
    own_.dispatcher.MarkAll(*node);
  }
  DoomUnfit(now);
  Rebind(now);
  filler_.CloseAboveLimits(now);
}

// What is held or waited for is used.
std::vector<MappingQuestion> PoolBook::KnownPairs(TimePoint now) {
  for (const auto& [id, slot] : own_.leases.all()) {
    NoteUse({slot->pool->node->definition.id, slot->lease.role}, now);
  }
  for (const auto& [id, ticket] : own_.queue.all()) {
    for (const Ticket::Want& want : ticket->wants) {
      NoteUse({want.node, want.role}, now);
    }
  }
  return own_.directory.KnownPairs(now);
}

// A role may no longer hold what it was given before.
void PoolBook::DoomUnfit(TimePoint now) {
  std::vector<Slot*> unfit;
  for (const auto& [lease, slot] : own_.leases.all()) {
    const MappingEntry* entry =
        own_.directory.FindMapping(slot->pool->node->definition.id, slot->lease.role);
    if (entry == nullptr || entry->pool != slot->pool ||
        (entry->definition.restricted && !slot->connection.password_used)) {
      unfit.push_back(slot);
    }
  }
  for (Slot* slot : unfit) {
    life_.Doom(slot, CloseReason::kObsolete, now);
  }
}

// Tickets that wait for retired pools go to the pools that their mappings lead to now.
void PoolBook::Rebind(TimePoint now) {
  std::vector<Ticket*> stranded;
  for (const auto& [id, ticket] : own_.queue.all()) {
    if (std::any_of(ticket->wants.begin(), ticket->wants.end(), [this](const Ticket::Want& want) {
          const MappingEntry* entry = own_.directory.FindMapping(want.node, want.role);
          return entry == nullptr || entry->pool != want.pool ||
                 entry->definition.restricted != want.restricted;
        })) {
      stranded.push_back(ticket.get());
    }
  }
  for (Ticket* ticket : stranded) {
    RebindTicket(ticket, now);
  }
}

void PoolBook::RebindTicket(Ticket* ticket, TimePoint now) {
  for (const Ticket::Want& want : ticket->wants) {
    const MappingEntry* entry = own_.directory.FindMapping(want.node, want.role);
    if (entry == nullptr || entry->pool == nullptr) {
      refuser_.Reject(ticket,
                      entry != nullptr
                          ? entry->definition.status
                          : Status(sqlstate::kUndefinedObject,
                                   "datanode \"" + want.pool->node->definition.name +
                                       "\" was dropped while a connection to it was waited for"));
      return;
    }
  }
  own_.dispatcher.MarkWanted(ticket);
  own_.queue.Rebind(ticket, now, [&] {
    for (Ticket::Want& want : ticket->wants) {
      const MappingEntry* entry = own_.directory.FindMapping(want.node, want.role);
      want.pool = entry->pool;
      want.restricted = entry->definition.restricted;
    }
  });
  own_.dispatcher.MarkWanted(ticket);
}

// Retired pools and nodes go when their last slot is closed.
void PoolBook::DropEmpty() {
  for (const auto& pool : own_.directory.TakeEmptyPools()) {
    own_.dispatcher.Forget(pool.get());
    own_.gate.Forget(*pool);
  }
  for (const auto& node : own_.directory.TakeEmptyNodes()) {
    own_.leases.FreeNodeCell(*node);
  }
}

}  // namespace polarx
