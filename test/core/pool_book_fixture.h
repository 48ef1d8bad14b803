// A book-keeping whose actions are recorded and answered by hand, on a clock that stands still
// until a test moves it.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "core/pool_book.h"

namespace polarx {

class PoolBookTest : public ::testing::Test,
                     public SlotDriver,
                     public LeaseEvents,
                     public Surroundings {
 protected:
  static constexpr NodeId kNode = 1;
  static constexpr NodeId kOtherNode = 2;
  static constexpr RoleId kRole = 10;
  static constexpr RoleId kOtherRole = 11;

  PoolBookTest() {
    settings_.min_pool_size = 0;
    settings_.min_free_size = 0;
    settings_.max_pool_size = 2;
    settings_.pool_session_context_check_gap = std::chrono::seconds(1000000);
  }

  // --- set-up ---------------------------------------------------------------------------------
  static NodeDefinition NodeOf(NodeId id) {
    NodeDefinition node;
    node.id = id;
    node.name = "dn" + std::to_string(id);
    node.host = "127.0.0.1";
    return node;
  }
  static MappingDefinition MappingOf(NodeId node, RoleId role, const std::string& user) {
    MappingDefinition mapping;
    mapping.node = node;
    mapping.role = role;
    mapping.role_name = "role" + std::to_string(role);
    mapping.options = {{"user", user}};
    mapping.remote_user = user;
    mapping.restricted = false;
    return mapping;
  }
  // Two nodes; kRole is alice and kOtherRole bob on each.
  void Open(std::span<NodeCell> cells = {}) {
    book_ = std::make_unique<PoolBook>(this, this, this, settings_, 1, cells);
    nodes_ = {NodeOf(kNode), NodeOf(kOtherNode)};
    mappings_.clear();
    for (NodeId node : {kNode, kOtherNode}) {
      mappings_.push_back(MappingOf(node, kRole, "alice"));
      mappings_.push_back(MappingOf(node, kOtherRole, "bob"));
    }
    SendCatalog();
  }
  // One pool alone.
  void OpenOne() {
    book_ = std::make_unique<PoolBook>(this, this, this, settings_, 1);
    nodes_ = {NodeOf(kNode)};
    mappings_ = {MappingOf(kNode, kRole, "alice")};
    book_->SetCatalog(nodes_, mappings_, now_);
    EndTurn();
    ConnectAll();
  }
  void SendCatalog() {
    book_->SetCatalog(nodes_, mappings_, now_);
    EndTurn();
  }

  // --- verbs ----------------------------------------------------------------------------------
  void EndTurn() { book_->EndTurn(now_); }
  void Pass(Duration time) { now_ += time; }
  // To the moment at which the pool's first slot has to be looked at.
  void PassUntilDue() {
    ASSERT_NE(book_->NextDeadline(), kNever);
    now_ = std::max(now_, book_->NextDeadline());
    EndTurn();
  }
  void Ask(SessionId session, std::vector<protocol::Wanted> wanted = {{kNode, kRole}},
           Duration queue_timeout = Duration::zero(), bool sets = false) {
    book_->Request(session, 1, wanted, queue_timeout, sets, now_);
  }
  // Answers every connect that was ordered, in order.
  void ConnectAll() {
    while (!connecting_.empty()) {
      Slot* slot = connecting_.front();
      connecting_.erase(connecting_.begin());
      slot->connection.password_used = password_used_;
      book_->OnConnected(slot, now_);
      EndTurn();
    }
  }
  void FailConnects(const Status& status) {
    FailConnects(status, ScopeOfFailure(status.sqlstate()));
  }
  void FailConnects(const Status& status, FailureScope scope) {
    while (!connecting_.empty()) {
      Slot* slot = connecting_.front();
      connecting_.erase(connecting_.begin());
      book_->OnConnectFailed(slot, status, scope, now_);
      EndTurn();
    }
  }
  void FinishResets() {
    std::vector<Slot*> slots;
    slots.swap(resetting_);
    for (Slot* slot : slots) {
      book_->OnReady(slot, now_);
    }
    EndTurn();
  }
  void FinishMeasures(std::optional<std::int64_t> bytes) {
    std::vector<Slot*> slots;
    slots.swap(measuring_);
    for (Slot* slot : slots) {
      book_->OnMeasured(slot, bytes, now_);
    }
    EndTurn();
  }
  void FinishCloses() {
    std::vector<Slot*> slots;
    slots.swap(closing_);
    for (Slot* slot : slots) {
      book_->OnClosed(slot, false);
    }
    EndTurn();
  }
  void GiveBack(SessionId session, protocol::ReleaseKind kind = protocol::ReleaseKind::kClean) {
    std::vector<LeaseId> leases;
    leases.swap(held_[session]);
    for (LeaseId lease : leases) {
      EXPECT_TRUE(book_->Release(session, lease, kind, now_));
    }
    EndTurn();
  }
  // Session asks and holds one lease of kNode.
  void Hold(SessionId session) {
    Ask(session);
    EndTurn();
    ConnectAll();
    ASSERT_EQ(held_[session].size(), 1u);
  }
  // Sessions 1 to `sessions` hold a lease each at the same time; then all are idle again.
  void UseTogether(SessionId sessions) {
    for (SessionId session = 1; session <= sessions; ++session) {
      Hold(session);
    }
    ConnectAll();
    for (SessionId session = 1; session <= sessions; ++session) {
      GiveBack(session);
    }
    FinishResets();
  }
  Pool* PoolOf(NodeId node, RoleId role) {
    return book_->directory().FindMapping(node, role)->pool;
  }
  int Total(NodeId node) { return book_->directory().FindNode(node)->total(); }
  std::string RejectionOf(SessionId session) {
    const auto found = rejected_.find(session);
    return found == rejected_.end() ? "" : found->second.sqlstate();
  }

  // --- what the book has done by others ---------------------------------------------------------
  Status RoomFor(const Node& node) override {
    int slots = 0;
    for (const auto& [id, other] : book_->directory().nodes()) {
      slots += other->slots();
    }
    return slots < room_ ? Status()
                         : Status(sqlstate::kOutOfDescriptors,
                                  "no descriptor for \"" + node.definition.name + "\"");
  }
  void Connect(Slot* slot) override {
    connecting_.push_back(slot);
    ++connects_;
  }
  void Warm(Slot* slot) override { warming_.push_back(slot); }
  bool LooksAlive(const Slot& slot) override { return dead_.count(slot.id) == 0; }
  void Reset(Slot* slot, ResetWork work) override {
    (work.measure ? measuring_ : resetting_).push_back(slot);
    last_reset_ = work.kind;
    last_verify_ = std::move(work.verify);
  }
  void Measure(Slot* slot) override { measuring_.push_back(slot); }
  void Recall(const Slot& slot) override { recalled_.push_back(slot.lease.id); }
  void Taken(const Slot& slot) override { taken_.push_back(slot.lease.id); }
  void LongLease(const Slot& slot, Duration held) override {
    long_leases_.emplace_back(slot.lease.session, held);
  }
  void Close(Slot* slot) override {
    closing_.push_back(slot);
    ++closes_;
  }
  void Grant(const Ticket& ticket, std::span<Slot* const> slots) override {
    grants_.push_back(ticket.session);
    for (const Slot* slot : slots) {
      held_[ticket.session].push_back(slot->lease.id);
    }
  }
  void Reject(const Ticket& ticket, const Status& status) override {
    rejected_[ticket.session] = status;
  }
  int SessionPid(SessionId session) override { return static_cast<int>(session) + 5000; }
  void Log(const std::string& message, const std::string&) override { logs_.push_back(message); }

  Settings settings_;
  TimePoint now_{std::chrono::seconds(100000)};
  std::unique_ptr<PoolBook> book_;
  std::vector<NodeDefinition> nodes_;
  std::vector<MappingDefinition> mappings_;
  bool password_used_ = true;
  int room_ = 1000;  // connections that there are descriptors for

  std::vector<Slot*> connecting_, warming_, resetting_, closing_;
  std::vector<Slot*> measuring_;  // in a check, or in a reset that ends with a measure
  std::vector<LeaseId> recalled_;
  std::vector<LeaseId> taken_;  // parked leases that were taken back
  std::vector<std::pair<SessionId, Duration>> long_leases_;
  int connects_ = 0;
  int closes_ = 0;
  std::set<SlotId> dead_;
  protocol::ReleaseKind last_reset_{};
  std::vector<std::string> last_verify_;
  std::vector<SessionId> grants_;
  std::map<SessionId, std::vector<LeaseId>> held_;
  std::map<SessionId, Status> rejected_;
  std::vector<std::string> logs_;
};

}  // namespace polarx
