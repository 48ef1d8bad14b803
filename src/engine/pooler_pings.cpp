// Pings go out here, on slots and as startups; on the main thread.
#include "engine/pooler_pings.h"

#include <utility>

#include "engine/startup_ping.h"

namespace polarx {

bool PoolerPings::PingBySlot(PingId ping, NodeId node, RoleId role, TimePoint now) {
  const MappingEntry* mapping = book_->directory().FindMapping(node, role);
  if (mapping == nullptr || mapping->pool == nullptr) {
    return false;
  }
  Slot* slot = book_->TakeForPing(mapping->pool, now);
  if (slot != nullptr) {
    slots_->Ping(slot, ping);
  }
  return slot != nullptr;
}

bool PoolerPings::PingByStartup(PingId ping, NodeId id, TimePoint deadline,
                                std::chrono::seconds limit) {
  const Node* node = book_->directory().FindNode(id);
  if (node == nullptr) {
    return false;
  }
  const NodeDefinition& definition = node->definition;
  const std::string& host = definition.hostaddr.empty() ? definition.host : definition.hostaddr;
  const std::string port = std::to_string(definition.port);
  fleet_->RunBlocking(
      "ping " + host + ":" + port,
      [ping, name = definition.name, host = host, port, deadline, limit]() -> Completion {
        const TimePoint begin = Now();
        Status status = StartupPing(name, host, port, deadline, limit);
        const double milliseconds =
            std::chrono::duration<double, std::milli>(Now() - begin).count();
        return Pinged{ping, std::move(status), milliseconds};
      });
  return true;
}

void PoolerPings::OnPinged(NodeId node, const Status& status, double milliseconds, TimePoint now) {
  book_->OnPing(node, status.ok(), milliseconds, status, now);
}

std::string PoolerPings::NameOf(NodeId id) {
  const Node* node = book_->directory().FindNode(id);
  return node == nullptr ? "" : node->definition.name;
}

void PoolerPings::OnAllPinged(SessionId id, std::uint32_t request,
                              std::vector<protocol::Row> rows) {
  if (Session* session = sessions_->Find(id); session != nullptr) {
    --session->owed_answers;
    sessions_->Send(session, protocol::Rows{request, std::move(rows)});
  }
}

}  // namespace polarx
