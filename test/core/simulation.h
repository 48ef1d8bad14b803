// A world for the book-keeping on a clock of its own: datanodes that fail,
// dawdle and hang up, sessions that ask, hold and die, a catalog that changes.
// All chance comes from one seed.
#pragma once

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "simulation_parts.h"

namespace polarx {

class Simulation : public SlotDriver, public LeaseEvents, public Surroundings {
 public:
  // Small ones meet what is rare more often.
  struct Scale {
    int nodes = 5;
    int clients = 36;
    int slots = 16;                                // of a node, at most
    Duration tick = std::chrono::microseconds(1);  // what falls into one is heard of together
  };
  static constexpr int kRoles = 4;
  static constexpr int kUsers = 3;

  Simulation(std::uint64_t seed, Scale scale)
      : scale_(scale),
        chance_(seed),
        datanodes_(static_cast<std::size_t>(scale.nodes)),
        mappings_(static_cast<std::size_t>(scale.nodes)),
        clients_(static_cast<std::size_t>(scale.clients)),
        node_cells_(static_cast<std::size_t>(scale.nodes - 1)),
        session_cells_(static_cast<std::size_t>(scale.clients)) {
    static constexpr std::array<int, 4> kMaxima = {1, 2, 3, 6};
    for (std::size_t index = 0; index < datanodes_.size(); ++index) {
      Datanode& datanode = datanodes_[index];
      datanode.definition.id = static_cast<NodeId>(index + 1);
      datanode.definition.name = "dn" + std::to_string(index + 1);
      datanode.definition.max_pool_size =
          index < kMaxima.size() ? kMaxima[index] * (scale.slots / 16) : -1;
      for (Mapping& mapping : mappings_[index]) {
        mapping.user = chance_.Number(0, kUsers - 1);
        mapping.known = chance_.Percent(70);
      }
    }
    for (int place = 0; Client & client : clients_) {
      Begin(&client, place++);
    }
    ChangeSettings();
    book_ = std::make_unique<PoolBook>(this, this, this, settings_, seed, node_cells_);
    SendCatalog();
  }

  // --- the catalog
  // ----------------------------------------------------------------------------
  MappingDefinition MappingOf(int node, int role) const {
    const Mapping& mapping = mappings_[node][role];
    MappingDefinition result;
    result.node = datanodes_[node].definition.id;
    result.role = static_cast<RoleId>(10 + role);
    result.role_name = "role" + std::to_string(role);
    if (mapping.broken) {
      result.status = Status("2F003", "password is required");
      return result;
    }
    result.remote_user = "user" + std::to_string(mapping.user);
    result.options = {{"port", std::to_string(datanodes_[node].definition.port)},
                      {"user", result.remote_user}};
    result.restricted = mapping.restricted;
    return result;
  }
  void SendCatalog() {
    std::vector<NodeDefinition> nodes;
    std::vector<MappingDefinition> mappings;
    for (int node = 0; node < scale_.nodes; ++node) {
      if (!datanodes_[node].present) {
        continue;
      }
      nodes.push_back(datanodes_[node].definition);
      for (int role = 0; role < kRoles; ++role) {
        if (mappings_[node][role].present && mappings_[node][role].known) {
          mappings.push_back(MappingOf(node, role));
        }
      }
    }
    book_->SetCatalog(nodes, mappings, now_);
  }
  void ChangeSettings() {
    using std::chrono::seconds;
    settings_.max_pool_size = chance_.Number(scale_.slots / 16, scale_.slots);
    room_ = chance_.Percent(50) ? 1000000 : chance_.Number(4, 30) * (scale_.slots / 16);
    settings_.min_pool_size = chance_.Number(0, 4);
    settings_.min_free_size = chance_.Number(0, 4);
    settings_.pool_conn_keepalive = chance_.Percent(10) ? kOff : seconds(chance_.Number(0, 30));
    settings_.pool_maintenance_timeout = seconds(chance_.Number(1, 20));
    settings_.pool_session_max_lifetime = seconds(chance_.Number(1, 60));
    settings_.pool_session_context_check_gap = seconds(chance_.Number(1, 30));
    settings_.lease_warn_after = seconds(chance_.Number(0, 3));
    settings_.warmup_query = chance_.Percent(50) ? "SELECT 1" : "";
  }

  // --- time
  // -----------------------------------------------------------------------------------
  // To the next thing that happens, but not beyond `limit`; what is due then
  // happens.
  void Advance(TimePoint limit) {
    TimePoint next = std::min({limit, book_->NextDeadline(), next_maintenance_});
    if (!events_.empty()) {
      next = std::min(next, events_.begin()->first);
    }
    const Duration end_of_tick = next.time_since_epoch() + scale_.tick - Duration(1);
    now_ = std::max(now_, TimePoint(end_of_tick - end_of_tick % scale_.tick));
    while (!events_.empty() && events_.begin()->first <= now_) {
      const std::function<void()> event = std::move(events_.begin()->second);
      events_.erase(events_.begin());
      event();
    }
    if (now_ >= next_maintenance_) {
      book_->Maintain(now_);
      next_maintenance_ = now_ + settings_.pool_maintenance_timeout;
    }
  }
  void EndTurn() {
    looks_ = 0;
    book_->EndTurn(now_);
  }

  // node 0: all.
  void Pause(NodeId node, bool paused) {
    const Duration before = PausedTime();
    if (node == 0) {
      paused_.clear();
    }
    if (paused) {
      paused_.insert(node);
    } else {
      paused_.erase(node);
    }
    paused_time_ = before;
    paused_at_ = now_;
    book_->Pause(node, paused, now_);
  }
  // How long some node or other has been paused so far.
  Duration PausedTime() const {
    return paused_time_ + (paused_.empty() ? Duration::zero() : now_ - paused_at_);
  }

  // --- sessions
  // -------------------------------------------------------------------------------
  void Ask(Client* client, std::vector<protocol::Wanted> wanted, Duration queue_timeout) {
    for (const protocol::Wanted& want : wanted) {
      Mapping& mapping = mappings_[want.node - 1][want.role - 10];
      const Datanode& datanode = datanodes_[want.node - 1];
      if (!datanode.present || !mapping.present) {
        return;
      }
      if (book_->directory().FindMapping(want.node, want.role) == nullptr) {
        mapping.known = true;
        book_->AddMapping(
            &datanode.definition,
            MappingOf(static_cast<int>(want.node) - 1, static_cast<int>(want.role) - 10), now_);
      }
    }
    client->waiting = true;
    client->paused_before = PausedTime();
    client->unseen = false;
    client->patient = queue_timeout > Duration::zero();
    client->answer_by = client->patient ? now_ + queue_timeout : kNever;
    client->wanted = std::move(wanted);
    book_->Request(client->id, ++client->request, client->wanted, queue_timeout, false, now_,
                   session_cells_[client->place].data());
  }
  void Withdraw(Client* client) {
    if (client->waiting) {
      Require(book_->Withdraw(client->id, client->request), "a waiting request is not known");
      Require(!client->waiting, "a withdrawn request was not answered");
    } else if (client->unseen) {
      for (LeaseId lease : std::exchange(client->leases, {})) {
        Require(book_->Return(client->id, lease, now_), "a lease is not known");
      }
      client->unseen = false;
    }
  }
  void GiveBack(Client* client, std::size_t index, protocol::ReleaseKind kind) {
    const LeaseId lease = client->leases[index];
    client->leases.erase(client->leases.begin() + static_cast<std::ptrdiff_t>(index));
    client->unseen = false;
    Require(book_->Release(client->id, lease, kind, now_), "a lease is not known");
    Require(!book_->Release(client->id, lease, kind, now_), "a lease was given back twice");
  }
  void GiveAllBack(Client* client, protocol::ReleaseKind kind) {
    while (!client->leases.empty()) {
      GiveBack(client, client->leases.size() - 1, kind);
    }
  }
  void Die(Client* client) {
    if (client->waiting) {
      Withdraw(client);
    }
    for (LeaseId lease : client->leases) {
      book_->Abandon(client->id, lease, now_);
    }
    for (const Kept& kept : std::exchange(client->parked, {})) {
      if (!kept.taken) {
        const Slot* slot = book_->FindLease(kept.lease);
        book_->Abandon(client->id, kept.lease, now_);
        Require(slot->state == SlotState::kResetting || slot->state == SlotState::kClosing,
                "a parked lease outlives its session");
      }
    }
    for (const Kept& kept : std::exchange(client->returned, {})) {
      book_->Abandon(client->id, kept.lease, now_);
    }
    for (const LeaseCell& cell : session_cells_[client->place]) {
      Require(cell.word.load() == 0, "a cell outlives its session");
    }
    places_.erase(client->id);
    Begin(client, client->place);
  }
  void Park(Client* client, std::size_t index);
  void GiveBackQuietly(Client* client, std::size_t index);
  void Retake(Client* client, std::size_t index);
  void Unpark(Client* client, std::size_t index);
  Client* FindClient(SessionId id) {
    const auto found = places_.find(id);
    Require(found != places_.end(), "a session is not known");
    return &clients_[found->second];
  }

  // --- datanodes
  // ------------------------------------------------------------------------------
  Datanode& DatanodeOf(const Slot& slot) { return datanodes_[slot.pool->node->definition.id - 1]; }
  bool Fails(int percent) { return faults_ && chance_.Percent(percent); }
  // How long a datanode takes: seldom up to a time-out.
  Duration Delay() {
    return faults_ && chance_.Percent(3) ? chance_.Time(std::chrono::seconds(10))
                                         : chance_.Time(std::chrono::milliseconds(8));
  }
  void After(Duration delay, std::function<void()> event) {
    events_.emplace(now_ + delay, std::move(event));
  }
  void HangUp(Slot* slot) {
    dead_.insert(slot->id);
    After(Delay(), [this, id = slot->id] {
      if (Slot* found = book_->FindSlot(id); found != nullptr) {
        book_->OnBroken(found, "it hung up", now_);
      }
    });
  }
  void FinishConnect(SlotId id) {
    Slot* slot = book_->FindSlot(id);
    Require(slot != nullptr && slot->state == SlotState::kConnecting, "a connecting slot is gone");
    const Datanode& datanode = DatanodeOf(*slot);
    const int user = slot->pool->remote_user.back() - '0';
    if (datanode.down || Fails(2)) {
      book_->OnConnectFailed(slot, Status("08001", "refused"), FailureScope::kNode, now_);
    } else if (datanode.locked_out.contains(user)) {
      book_->OnConnectFailed(slot, Status("28P01", "wrong password"), FailureScope::kPool, now_);
    } else {
      slot->connection.password_used = datanode.asks_password;
      book_->OnConnected(slot, now_);
      if (datanode.hangs_up) {
        dead_.insert(id);
        book_->OnBroken(slot, "it hung up", now_);
      }
    }
  }
  void FinishRun(SlotId id, SlotState state, bool measure) {
    Slot* slot = book_->FindSlot(id);
    if (slot == nullptr || slot->state != state) {
      return;
    }
    if (state == SlotState::kWarming && Fails(20)) {
      book_->OnWarmupFailed(slot, "no such table", chance_.Percent(20), now_);
    } else if (dead_.contains(id) || Fails(3)) {
      book_->OnBroken(slot, "no answer", now_);
    } else if (measure) {
      const std::int64_t bytes = (Fails(10) ? 11 : 9) * (std::int64_t{1} << 20);
      book_->OnMeasured(slot, Fails(10) ? std::nullopt : std::optional(bytes), now_);
    } else {
      book_->OnReady(slot, now_);
    }
  }
  void PingOn(Slot* slot) {
    After(Delay(), [this, id = slot->id, node = slot->pool->node->definition.id] {
      const bool up = !datanodes_[node - 1].down && !dead_.contains(id);
      book_->OnPing(node, up, 1, up ? Status() : Status("08006", "no answer"), now_);
      FinishRun(id, SlotState::kChecking, false);
    });
  }

  // --- what the book has done by others ---------------------------------------------------------
  Status RoomFor(const Node&) override { return HasRoom() ? Status() : Status("53000", "none"); }
  bool HasRoom() const;
  void Connect(Slot* slot) override {
    const Node& node = *slot->pool->node;
    Require(node.total() <= node.limits.max_size, "a node is above its maximum");
    Require(node.count(SlotState::kConnecting) <= kParallelConnects, "too many connects at once");
    Require(!node.paused && !slot->pool->obsolete, "a connect for nobody");
    ++connects_;
    Require(!count_attempts_ || attempts_.Add(node.definition.id, now_) <= Attempts::kMost,
            "a datanode is connected to without end");
    After(Delay(), [this, id = slot->id] { FinishConnect(id); });
  }
  void Run(Slot* slot, SlotState state, bool measure) {
    Require(slot->state == state && slot->lease.id == 0, "an order for a slot in another state");
    After(Delay(), [this, id = slot->id, state, measure] { FinishRun(id, state, measure); });
  }
  void Warm(Slot* slot) override { Run(slot, SlotState::kWarming, false); }
  void Reset(Slot* slot, ResetWork work) override {
    Require((answers_due_.erase(slot->id) > 0) == (work.kind == protocol::ReleaseKind::kResetSent),
            "the answer to a session's reset is not known of");
    Run(slot, SlotState::kResetting, work.measure);
  }
  void Measure(Slot* slot) override { Run(slot, SlotState::kChecking, true); }
  bool LooksAlive(const Slot& slot) override {
    Require(slot.state == SlotState::kIdle, "a look at a slot that is not idle");
    Require(++looks_ < 100000, "a turn does not end");
    return !dead_.contains(slot.id);
  }
  void Close(Slot* slot) override {
    Require(slot->state == SlotState::kClosing && slot->lease.id == 0, "a slot in use is closed");
    ++closes_[slot->doomed];
    After(Delay(), [this, id = slot->id] {
      Slot* found = book_->FindSlot(id);
      Require(found != nullptr, "a closing slot is gone");
      dead_.erase(id);
      answers_due_.erase(id);
      book_->OnClosed(found, Fails(20));
    });
  }
  void Taken(const Slot& slot) override {
    Client* client = FindClient(slot.lease.session);
    if (std::erase_if(client->returned,
                      [&slot](const Kept& kept) { return kept.lease == slot.lease.id; }) > 0) {
      return;
    }
    for (Kept& kept : client->parked) {
      if (kept.lease == slot.lease.id) {
        Require(!std::exchange(kept.taken, true), "a lease is taken twice");
        return;
      }
    }
    throw std::runtime_error("a lease is taken that was not parked");
  }
  void Recall(const Slot& slot) override {
    Require(!slot.parked(), "a parked lease is recalled");
    Require(slot.state == SlotState::kLeased, "what is not lent is recalled");
    Require(recalled_.insert(slot.lease.id).second, "a lease is recalled twice");
  }
  void LongLease(const Slot& slot, Duration held) override {
    Require(!slot.parked(), "a warning of a parked lease");
    Require(held >= settings_.lease_warn_after, "a warning comes too early");
  }
  void Grant(const Ticket& ticket, std::span<Slot* const> slots) override;
  void Reject(const Ticket& ticket, const Status& status) override {
    Client* client = FindClient(ticket.session);
    Require(client->waiting && client->request == ticket.request, "an answer to no request");
    Require(!status.ok(), "a rejection without a reason");
    client->waiting = false;
  }
  int SessionPid(SessionId session) override { return static_cast<int>(session); }
  void Log(const std::string&, const std::string&) override {}

  const Scale scale_;
  Chance chance_;
  Settings settings_;
  TimePoint now_{std::chrono::seconds(100000)};
  TimePoint next_maintenance_ = now_;
  std::vector<Datanode> datanodes_;
  std::vector<std::array<Mapping, kRoles>> mappings_;
  std::vector<Client> clients_;
  std::vector<NodeCell> node_cells_;  // one node has none
  std::vector<std::array<LeaseCell, kCellsOfASession>> session_cells_;
  std::unique_ptr<PoolBook> book_;
  bool faults_ = true;
  int room_ = 1000000;  // connections that there are descriptors for
  int connects_ = 0;
  bool count_attempts_ = false;  // where no connect is of use
  Attempts attempts_;
  std::map<CloseReason, int> closes_;
  int grants_ = 0;
  int retakes_ = 0;
  int returns_ = 0;               // through cells
  std::set<SlotId> answers_due_;  // to resets that sessions have sent
  std::set<SlotId> dead_;         // the datanode has hung up, whether that is known yet or not

 private:
  std::multimap<TimePoint, std::function<void()>> events_;
  void Begin(Client* client, int place) {
    *client = Client{};
    client->id = next_session_++;
    client->place = place;
    places_[client->id] = place;
  }

  std::set<NodeId> paused_;
  Duration paused_time_{};
  TimePoint paused_at_{};                      // meaningful while some are
  std::unordered_map<SessionId, int> places_;  // of those that live
  std::set<LeaseId> recalled_;
  SessionId next_session_ = 1;
  int looks_ = 0;
};

// All of it or nothing, of the right pools, in order of arrival, and nothing
// that may not be lent.
inline void Simulation::Grant(const Ticket& ticket, std::span<Slot* const> slots) {
  Client* client = FindClient(ticket.session);
  Require(client->waiting && client->request == ticket.request, "an answer to no request");
  Require(slots.size() == client->wanted.size(), "a grant of some of what was wanted");
  client->waiting = false;
  client->unseen = true;
  ++grants_;
  for (std::size_t index = 0; index < slots.size(); ++index) {
    const Slot& slot = *slots[index];
    const Pool& pool = *slot.pool;
    const protocol::Wanted& want = client->wanted[index];
    const int node = static_cast<int>(want.node) - 1;
    const int role = static_cast<int>(want.role) - 10;
    Require(pool.node->definition.id == want.node && slot.lease.role == want.role, "a wrong node");
    Require(pool.options == MappingOf(node, role).options, "a wrong pool");
    Require(!mappings_[node][role].restricted || slot.connection.password_used,
            "the password rule is broken");
    Require(slot.state == SlotState::kLeased && slot.lease.session == client->id,
            "a slot is not lent");
    Require(slot.doomed == CloseReason::kNone && !pool.obsolete, "a doomed slot is lent");
    Require(!pool.node->paused, "a slot of a paused node is lent");
    Require(!dead_.contains(slot.id), "a dead slot is lent");
    Require(!answers_due_.contains(slot.id), "a slot is lent with an unread answer");
    Require(slot.parking.cell == nullptr ||
                parking::InUse(parking::StateOf(*slot.parking.cell, slot.lease.id)),
            "a lease does not begin in use");
    for (const auto& [id, other] : pool.queue) {
      Require(id > ticket.id || slots.size() > 1 || other->wants.size() > 1,
              "a request was overtaken");
    }
    client->leases.push_back(slot.lease.id);
  }
}

}  // namespace polarx

#include "simulation_parking.h"  // IWYU pragma: export
