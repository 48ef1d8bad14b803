// A session beside a pooler: goes through all interleavings of their programs and notes which
// promises were broken.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <map>
#include <set>
#include <string>

#include "parking_sides.h"

namespace polarx::parking_walk {

// --- all ways -----------------------------------------------------------------------------------

enum class Fate : std::uint8_t { kLives, kMayDie, kDies };

struct Play {
  Acts acts;
  Want want = Want::kServe;
  bool reallot = false;
  Fate fate = Fate::kLives;
};

class Walker {
 public:
  Walker(const Rules& rules, const Play& play) : rules_(rules), play_(play), ways_(Walk(Stage())) {}

  std::uint64_t ways() const { return ways_; }
  const std::set<std::string>& faults() const { return faults_; }

 private:
  struct Stage {
    World world;
    std::array<Side, 2> sides;
    auto operator<=>(const Stage&) const = default;
  };

  // False: it is blocked.
  bool Move(Stage* stage, std::size_t index) const {
    Side* side = &stage->sides[index];
    Access access(&stage->world, side);
    try {
      if (index == 0) {
        RunSession(&access, rules_, play_.acts);
      } else {
        RunPooler(&access, rules_, play_.want, play_.reallot);
      }
      side->done = true;
    } catch (const NotYet& stop) {
      return !stop.blocked;
    }
    return true;
  }

  static void Kill(Stage* stage) {
    stage->sides[0].done = true;
    stage->world.dead = true;
    if (stage->world.user == User::kSession) {
      stage->world.left_in_use = true;
      stage->world.user = User::kNobody;
    }
  }

  // How many ways go on from here; what two ways have led to is gone through once.
  std::uint64_t Walk(const Stage& stage) {
    if (const auto known = known_.find(stage); known != known_.end()) {
      return known->second;
    }
    std::uint64_t ways = 0;
    for (std::size_t index = 0; index < stage.sides.size(); ++index) {
      Stage next = stage;
      if (!stage.sides[index].done && Move(&next, index)) {
        ways += Go(next);
      }
    }
    const bool moved = ways > 0;
    if (play_.fate != Fate::kLives && !stage.world.dead) {
      Stage next = stage;
      Kill(&next);
      ways += Walk(next);
    }
    if (!moved && (play_.fate != Fate::kDies || stage.world.dead)) {
      CheckEnd(stage);
      ++ways;
    }
    known_.emplace(stage, ways);
    return ways;
  }

  std::uint64_t Go(const Stage& stage) {
    const World& world = stage.world;
    if (world.recalled && (world.word == parking::Word(kLease, State::kParked) ||
                           world.word == parking::Word(kLease, State::kResetSent))) {
      faults_.insert("parked though recalled");
    } else if (!world.fault.empty()) {
      faults_.insert(world.fault);
    } else {
      return Walk(stage);
    }
    return 1;
  }

  void CheckEnd(const Stage& stage) {
    const std::uint64_t left = play_.reallot ? parking::Word(kNextLease, State::kLeased) : 0;
    if (!stage.sides[1].done) {
      faults_.insert("waits for ever");
    } else if (stage.world.word != left) {
      faults_.insert("the cell is not as the pooler left it");
    } else if (play_.reallot && stage.world.retakes != 0) {
      faults_.insert("the next lease has retakes of the last one");
    }
  }

  const Rules& rules_;
  const Play& play_;
  std::map<Stage, std::uint64_t> known_;
  std::set<std::string> faults_;
  std::uint64_t ways_ = 0;  // the walk fills the others
};

}  // namespace polarx::parking_walk
