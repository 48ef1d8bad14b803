// What befalls a simulated world: datanodes that hang up, go down or ask for other passwords, and
// administrators.
#pragma once

#include "simulation.h"

namespace polarx {

class Trouble {
 public:
  explicit Trouble(Simulation* world) : world_(*world), chance_(world->chance_) {}

  void Befall() {
    const int kind = chance_.Number(1, 4);
    if (kind <= 2) {
      HangUpSomewhere();
    } else if (kind == 3) {
      ChangeWeather();
    } else {
      Operate();
    }
  }

  // Every session may have what it asks for.
  void RemoveLimits() {
    world_.room_ = 1000000;
    world_.settings_.max_pool_size = 65535;
    for (Datanode& datanode : world_.datanodes_) {
      datanode.present = true;
      datanode.definition.max_pool_size = -1;
    }
    for (auto& mappings : world_.mappings_) {
      for (Mapping& mapping : mappings) {
        mapping.present = true;
        mapping.restricted = mapping.broken = false;
      }
    }
    world_.SendCatalog();
    world_.book_->Apply(world_.settings_, world_.now_);
  }

 private:
  void HangUpSomewhere() {
    const auto& pools = world_.book_->directory().pools();
    if (pools.empty()) {
      return;
    }
    auto pool = pools.begin();
    std::advance(pool, chance_.Number(0, static_cast<int>(pools.size()) - 1));
    auto& list = pool->second->list(static_cast<SlotState>(chance_.Number(0, kSlotStates - 1)));
    if (!list.empty() && list.front().state != SlotState::kConnecting) {
      world_.HangUp(chance_.Percent(50) ? &list.front() : &list.back());
    }
  }

  void ChangeWeather() {
    Datanode& datanode = world_.datanodes_[chance_.Number(0, world_.scale_.nodes - 1)];
    const int kind = chance_.Number(1, 3);
    if (kind == 1) {
      datanode.down = !datanode.down && chance_.Percent(50);
    } else if (kind == 2) {
      datanode.locked_out.clear();
      if (chance_.Percent(50)) {
        datanode.locked_out.insert(chance_.Number(0, Simulation::kUsers - 1));
      }
    } else {
      datanode.asks_password = chance_.Percent(80);
    }
  }

  void Operate() {
    const auto node = static_cast<NodeId>(chance_.Number(0, world_.scale_.nodes));
    switch (chance_.Number(1, 8)) {
      case 1:
      case 2:
        ChangeCatalog();
        break;
      case 3:
        world_.ChangeSettings();
        world_.book_->Apply(world_.settings_, world_.now_);
        break;
      case 4:
        (void)world_.book_->Clean(
            node, chance_.Percent(50) ? "" : "user" + std::to_string(chance_.Number(0, 2)),
            world_.now_);
        break;
      case 5:
        world_.Pause(node, chance_.Percent(40));
        break;
      case 6:
        world_.book_->SetSurvivors(chance_.Percent(50)
                                       ? std::map<NodeId, int>{}
                                       : std::map<NodeId, int>{{node, chance_.Number(0, 3)}});
        break;
      case 7:
        world_.book_->ResetStats();
        break;
      default:
        Ping();
    }
  }

  void ChangeCatalog() {
    const int node = chance_.Number(0, world_.scale_.nodes - 1);
    Datanode& datanode = world_.datanodes_[node];
    Mapping& mapping = world_.mappings_[node][chance_.Number(0, Simulation::kRoles - 1)];
    switch (chance_.Number(1, 8)) {
      case 1:
        datanode.present = !datanode.present || chance_.Percent(50);
        break;
      case 2:
        datanode.definition.port = 5432 + chance_.Number(0, 1);
        break;
      case 3:
        datanode.definition.max_pool_size =
            chance_.Percent(30) ? -1 : chance_.Number(1, 6) * (world_.scale_.slots / 16);
        break;
      case 4:
        datanode.definition.min_pool_size = chance_.Percent(70) ? -1 : chance_.Number(0, 3);
        break;
      case 5:
        mapping.present = !mapping.present || chance_.Percent(50);
        break;
      case 6:
        mapping.user = chance_.Number(0, Simulation::kUsers - 1);
        break;
      case 7:
        mapping.restricted = chance_.Percent(30);
        break;
      default:
        mapping.broken = chance_.Percent(20);
    }
    world_.SendCatalog();
  }

  void Ping() {
    for (const auto& [id, pool] : world_.book_->directory().pools()) {
      if (chance_.Percent(30)) {
        if (Slot* slot = world_.book_->TakeForPing(pool.get(), world_.now_); slot != nullptr) {
          world_.PingOn(slot);
        }
      }
    }
  }

  Simulation& world_;
  Chance& chance_;
};

}  // namespace polarx
