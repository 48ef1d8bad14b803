// The course of a simulation: steps at random, and scenes between them in which there is no
// trouble, or only one kind of it.
#pragma once

#include <algorithm>
#include <map>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "simulation.h"
#include "simulation_checks.h"
#include "simulation_place.h"
#include "simulation_trouble.h"

namespace polarx {

using std::chrono::milliseconds;
using std::chrono::seconds;

inline constexpr seconds kNoEnd{1000000};

class Driver {
 public:
  // `check_every`: so many turns everything is looked at, in between some of
  // it.
  explicit Driver(std::uint64_t seed, Simulation::Scale scale = {}, unsigned check_every = 1)
      : world_(seed, scale),
        chance_(world_.chance_),
        check_every_(check_every),
        busy_clients_(scale.clients) {}

  void Steps(int count) {
    for (; count > 0; --count) {
      Step();
    }
  }

  // Everybody asks, and uses what it keeps once a second: of so many nothing is
  // opened or closed.
  void Crowd() {
    EndTrouble();
    trouble_.RemoveLimits();
    StopUpkeep();
    UseEachSecond(20, "connections come and go in a crowd", [this] { UseAll(); });
    const int kept = std::accumulate(
        world_.clients_.begin(), world_.clients_.end(), 0,
        [](int sum, const Client& client) { return sum + static_cast<int>(client.parked.size()); });
    Require(kept > world_.scale_.clients, "leases are not kept");
    // What they have is more than they may have from now on.
    world_.settings_.max_pool_size = world_.scale_.clients * 4 / 3 / world_.scale_.nodes;
    world_.book_->Apply(world_.settings_, world_.now_);
    world_.faults_ = true;
  }

  // No trouble any more, nobody asks, everybody gives back.
  void Rest() {
    EndTrouble();
    const TimePoint limit = world_.now_ + seconds(90);
    while (AnybodyIsBusy()) {
      Require(world_.now_ < limit, "a request or lease does not end");
      for (Client& client : world_.clients_) {
        if (chance_.Percent(50)) {
          world_.GiveAllBack(&client, protocol::ReleaseKind::kClean);
          while (!client.parked.empty()) {
            world_.Unpark(&client, 0);
          }
        }
      }
      world_.Advance(std::min(limit, world_.now_ + milliseconds(10)));
      Turn();
    }
    // Until what was given up is refilled and what is unused is closed.
    const Duration keepalive =
        std::max<Duration>(world_.settings_.pool_conn_keepalive, seconds(60));
    PassTime(2 * keepalive + 3 * world_.settings_.pool_maintenance_timeout + seconds(30));
    const int connects = world_.connects_;
    std::map<CloseReason, int> closes = world_.closes_;
    PassTime(2 * keepalive + 10 * world_.settings_.pool_maintenance_timeout);
    const int expired = world_.closes_[CloseReason::kLifetime] - closes[CloseReason::kLifetime];
    closes[CloseReason::kLifetime] += expired;
    Require(closes == world_.closes_, "connections are closed for nothing");
    if (world_.settings_.pool_session_max_lifetime == kNoEnd) {
      Require(connects == world_.connects_ && expired == 0, "connections come and go for nobody");
      SimulationChecks(&world_).AtRest();
    } else {
      Require(world_.connects_ - connects <= expired + Slots(),
              "connections are opened for nobody");
    }
    UseSteadily();
    ServeSeveralUnderLoad();
    BearBadDatanodes();
    world_.faults_ = true;
    // Where few ask, parked leases live longer.
    busy_clients_ = chance_.Percent(50) ? world_.scale_.clients : world_.scale_.clients / 6;
  }

  int grants() const { return world_.grants_; }
  int retakes() const { return world_.retakes_; }
  int returns() const { return world_.returns_; }
  int steady_retakes() const { return steady_retakes_; }
  int most_slots() const { return most_slots_; }

 private:
  void Step() {
    const int crowd = busy_clients_ / 36 - 1;
    for (int more = crowd; more > 0; --more) {
      Move(&world_.clients_[chance_.Number(0, busy_clients_ - 1)]);
    }
    if (crowd > 0) {
      if (chance_.Percent(25)) {
        trouble_.Befall();
      }
      PassTime(chance_.Time(seconds(1)));
    }
    for (int count = chance_.Number(1, 3); count > 0; --count) {
      Act();
    }
    Turn();
  }

  void Turn() {
    ++current_step;
    world_.EndTurn();
    // A recall may be due for what was lent in this very turn, a dead slot
    // looked at: no more.
    for (int turns = 0; world_.book_->NextDeadline() <= world_.now_; ++turns) {
      Require(turns < 3, "the next deadline stays in the past");
      world_.EndTurn();
    }
    const SimulationChecks checks(&world_);
    if (++turns_ % check_every_ == 0) {
      checks.AfterTurn();
    } else {
      checks.InPassing(turns_);
    }
    most_slots_ = std::max(most_slots_, Slots());
  }

  int Slots() const {
    int slots = 0;
    for (const auto& [id, node] : world_.book_->directory().nodes()) {
      slots += node->total();
    }
    return slots;
  }

  void Act() {
    const int kind = chance_.Number(1, 1000);
    if (kind <= 480) {
      world_.Advance(world_.now_ + chance_.Time(seconds(2)));
    } else if (kind <= 960) {
      Move(&world_.clients_[chance_.Number(0, busy_clients_ - 1)]);
    } else {
      trouble_.Befall();
    }
  }

  void Move(Client* client) {
    const int kind = chance_.Number(1, 100);
    if (kind <= 2) {
      world_.Die(client);
    } else if (kind <= 5) {
      world_.Withdraw(client);
    } else if (client->waiting) {
      return;
    } else if (!client->parked.empty() && chance_.Percent(60)) {
      const int index = chance_.Number(0, static_cast<int>(client->parked.size()) - 1);
      if (chance_.Percent(90)) {
        world_.Retake(client, static_cast<std::size_t>(index));
      } else {
        world_.Unpark(client, static_cast<std::size_t>(index));
      }
    } else if (client->leases.empty() || (kind <= 12 && client->leases.size() < 3)) {
      const Duration timeout = chance_.Percent(40)   ? Duration::zero()
                               : chance_.Percent(70) ? chance_.Time(seconds(4)) + milliseconds(1)
                                                     : Duration(seconds(600));
      AskForSome(client, timeout);
    } else {
      if (chance_.Percent(40)) {
        world_.Park(client, 0);
        return;
      }
      if (chance_.Percent(50)) {
        world_.GiveBackQuietly(client, 0);
        return;
      }
      static constexpr protocol::ReleaseKind kKinds[] = {protocol::ReleaseKind::kClean,
                                                         protocol::ReleaseKind::kInTransaction,
                                                         protocol::ReleaseKind::kClose};
      const protocol::ReleaseKind release = kKinds[chance_.Percent(80) ? 0 : chance_.Number(0, 2)];
      if (chance_.Percent(70)) {
        world_.GiveAllBack(client, release);
      } else {
        world_.GiveBack(client, 0, release);
      }
    }
  }

  void AskForSome(Client* client, Duration timeout) {
    const auto role = static_cast<RoleId>(10 + chance_.Number(0, Simulation::kRoles - 1));
    std::vector<protocol::Wanted> wanted;
    const int most = chance_.Percent(70) ? 1 : 5;
    const int first = chance_.Number(1, world_.scale_.nodes);
    for (int index = 0; index < most; ++index) {
      const int node = 1 + (first + index - 1) % world_.scale_.nodes;
      if (index == 0 || chance_.Percent(50)) {
        wanted.push_back({static_cast<NodeId>(node), role});
      }
    }
    world_.Ask(client, std::move(wanted), timeout);
  }

  // Twice so often; in the second half nothing may be opened or closed, else
  // `broken` is the rule.
  template <typename Use>
  void UseEachSecond(int rounds, const char* broken, Use use) {
    int connects = 0;
    std::map<CloseReason, int> closes;
    for (int round = 0; round < 2 * rounds; ++round) {
      if (round == rounds) {
        connects = world_.connects_;
        closes = world_.closes_;
      }
      use();
      PassTime(seconds(1));
    }
    Require(connects == world_.connects_ && closes == world_.closes_, broken);
  }

  // A few sessions use what they have parked, once a second: after a while
  // nothing is opened or closed any more.
  void UseSteadily() {
    StopUpkeep();
    world_.room_ = std::max(world_.room_,
                            Slots());  // else it takes long to come down to it
    const auto node = static_cast<NodeId>(chance_.Number(1, world_.scale_.nodes));
    const auto role = static_cast<RoleId>(10 + chance_.Number(0, Simulation::kRoles - 1));
    Mapping& mapping = world_.mappings_[node - 1][role - 10];
    world_.datanodes_[node - 1].present = mapping.present = true;
    mapping.restricted = mapping.broken = false;
    world_.SendCatalog();
    const int users = chance_.Number(1, 3);
    UseEachSecond(60, "connections come and go in steady use", [&] {
      for (int user = 0; user < users; ++user) {
        UseOnce(&world_.clients_[user], {node, role});
      }
    });
    for (int user = 0; user < users; ++user) {
      while (!world_.clients_[user].parked.empty()) {
        world_.Unpark(&world_.clients_[user], 0);
      }
    }
    PassTime(seconds(1));
  }

  // One role may have every node, which lends a few slots; nobody else is led
  // there.
  RoleId OpenAll() {
    const auto role = static_cast<RoleId>(10 + chance_.Number(0, Simulation::kRoles - 1));
    trouble_.RemoveLimits();
    world_.settings_.max_pool_size = 2;
    world_.settings_.pool_conn_keepalive = seconds(60);
    world_.book_->Apply(world_.settings_, world_.now_);
    return role;
  }

  std::string TextOfPools() const {
    std::string text;
    for (const auto& [id, pool] : world_.book_->directory().pools()) {
      text += SimulationChecks::Text(*pool) + " kept=" + std::to_string(pool->kept) + "\n";
    }
    return text;
  }

  // Younger requests for single nodes do not overtake one for all of them for
  // ever.
  void ServeSeveralUnderLoad() {
    if (world_.scale_.clients > 100) {
      return;
    }
    const RoleId role = OpenAll();
    Client& several = world_.clients_[0];
    std::vector<protocol::Wanted> all;
    for (int node = 1; node <= world_.scale_.nodes; ++node) {
      all.push_back({static_cast<NodeId>(node), role});
    }
    const TimePoint begin = world_.now_ + seconds(1);
    bool asked = false;
    while (!asked || several.waiting) {
      Require(world_.now_ < begin + seconds(10), "a request for several nodes is overtaken",
              [this] { return TextOfPools(); });
      for (std::size_t index = 1; index < world_.clients_.size(); ++index) {
        Client& client = world_.clients_[index];
        if (!client.leases.empty()) {
          if (chance_.Percent(30)) {  // not all nodes' slots come back at the same time
            world_.GiveAllBack(&client, protocol::ReleaseKind::kClean);
          }
        } else if (!client.waiting) {
          world_.Ask(&client, {all[index % all.size()]}, seconds(600));
        }
      }
      if (!asked && world_.now_ >= begin) {
        asked = true;
        world_.Ask(&several, all, seconds(600));
      }
      world_.Advance(world_.now_ + milliseconds(5));
      Turn();
    }
    Require(!several.leases.empty(), "a request for several nodes is turned away");
    while (AnybodyIsBusy()) {
      for (Client& client : world_.clients_) {
        world_.GiveAllBack(&client, protocol::ReleaseKind::kClean);
      }
      world_.Advance(world_.now_ + milliseconds(5));
      Turn();
    }
  }

  // They let in and hang up, refuse, or know no password, and nobody asks.
  void BearBadDatanodes() {
    if (world_.scale_.clients > 100) {
      return;
    }
    world_.settings_.max_pool_size = 16;
    world_.settings_.min_pool_size = world_.settings_.min_free_size = 4;
    world_.book_->Apply(world_.settings_, world_.now_);
    for (Datanode& datanode : world_.datanodes_) {
      const int kind = chance_.Number(1, 3);
      datanode.hangs_up = kind == 1;
      datanode.down = kind == 2;
      for (int user = 0; kind == 3 && user < Simulation::kUsers; ++user) {
        datanode.locked_out.insert(user);
      }
    }
    (void)world_.book_->Clean(0, "", world_.now_);
    world_.attempts_ = {};
    world_.count_attempts_ = true;
    PassTime(seconds(15));
    world_.count_attempts_ = false;
    for (Datanode& datanode : world_.datanodes_) {
      datanode.hangs_up = false;
    }
    EndTrouble();
  }

  // Who is to be turned away is so at once: nothing is in the way of anybody.
  void UseOnce(Client* client, protocol::Wanted wanted) {
    if (!client->parked.empty()) {
      world_.Retake(client, 0);
      ++steady_retakes_;
    }
    if (client->leases.empty()) {
      world_.Ask(client, {wanted}, seconds(600));
    }
    const TimePoint limit = world_.now_ + seconds(60);
    for (Turn(); client->waiting; Turn()) {
      Require(world_.now_ < limit, "a request is not served");
      world_.Advance(std::min(limit, world_.now_ + milliseconds(10)));
    }
    while (!client->leases.empty()) {
      world_.Park(client, 0);
    }
    PassTime(milliseconds(20));  // until it has been reset, where it is not parked
  }

  void StopUpkeep() {
    world_.settings_.pool_session_max_lifetime = kNoEnd;
    world_.settings_.pool_session_context_check_gap = kNoEnd;
    world_.settings_.pool_conn_keepalive = seconds(15);
    world_.settings_.pool_maintenance_timeout = seconds(3);
    world_.book_->Apply(world_.settings_, world_.now_);
  }

  // All at the same time.
  void UseAll() {
    for (Client& client : world_.clients_) {
      while (!client.parked.empty()) {
        world_.Retake(&client, 0);
      }
      if (client.leases.empty()) {
        AskForSome(&client, seconds(600));
      }
    }
    const TimePoint limit = world_.now_ + seconds(60);
    for (Turn(); AnybodyWaits(); Turn()) {
      Require(world_.now_ < limit, "a request is not served");
      world_.Advance(limit);
    }
    for (Client& client : world_.clients_) {
      while (!client.leases.empty()) {
        world_.Park(&client, 0);
      }
    }
  }

  void EndTrouble() {
    world_.faults_ = false;
    for (Datanode& datanode : world_.datanodes_) {
      datanode.down = false;
      datanode.locked_out.clear();
    }
    world_.Pause(0, false);
    world_.book_->SetSurvivors({});
    world_.ChangeSettings();
    if (chance_.Percent(70)) {
      world_.settings_.pool_session_max_lifetime = kNoEnd;
    }
    world_.book_->Apply(world_.settings_, world_.now_);
    Turn();
  }

  bool AnybodyWaits() const {
    return std::any_of(world_.clients_.begin(), world_.clients_.end(),
                       [](const Client& client) { return client.waiting; });
  }

  bool AnybodyIsBusy() const {
    for (const Client& client : world_.clients_) {
      if (client.waiting || !client.leases.empty() || !client.parked.empty()) {
        return true;
      }
    }
    return false;
  }

  void PassTime(Duration time) {
    for (const TimePoint end = world_.now_ + time; world_.now_ < end;) {
      world_.Advance(end);
      Turn();
    }
  }

  Simulation world_;
  Chance& chance_;
  Trouble trouble_{&world_};
  const unsigned check_every_;
  unsigned turns_ = 0;
  int busy_clients_;
  int most_slots_ = 0;
  int steady_retakes_ = 0;
};

}  // namespace polarx
