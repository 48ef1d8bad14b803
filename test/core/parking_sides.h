// The short programs of a session that parks, takes again and gives back, and of a pooler that
// wants the lease, each of which can be stopped between any two accesses to what both sides see: it
// is run again from its start with the answers it has had, and one more.
#pragma once

#include <compare>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "core/parking.h"

namespace polarx::parking_walk {

using parking::Parked;
using parking::Retaken;
using parking::State;

inline constexpr std::uint64_t kLease = 1;
inline constexpr std::uint64_t kNextLease = 2;  // gets the same cell

enum class User : std::uint8_t { kNobody, kSession, kPooler };

// What both sides see, and what must be true of it.
struct World {
  std::uint64_t word = parking::Word(kLease, State::kFresh);
  std::uint64_t retakes = 0;
  std::uint64_t waiting = 0;
  std::uint64_t published = 0;  // how often
  bool released = false;        // a message is on its way to the pooler
  bool dead = false;            // the session, as the pooler sees after its last message
  bool left_in_use = false;     // by its death
  bool recalled = false;        // and the pooler knows that the session has the lease
  bool answer_due = false;      // unread in the connection, to a reset
  bool told = false;            // of that, in the message
  User user = User::kSession;   // who touches the connection
  std::string fault = {};
  auto operator<=>(const World&) const = default;
};

struct NotYet {
  bool blocked;
};

// One side's way through its program.
struct Side {
  std::vector<std::uint64_t> answers = {};
  bool done = false;
  auto operator<=>(const Side&) const = default;
};

class Access {
 public:
  Access(World* world, Side* side) : world_(world), side_(side) {}

  template <typename Action>
  std::uint64_t Do(Action action) {
    if (next_ == side_->answers.size()) {
      if (moved_) {
        throw NotYet{false};
      }
      moved_ = true;
      side_->answers.push_back(action(world_));
    }
    return side_->answers[next_++];
  }
  // Blocks until it is so.
  template <typename Condition>
  void Await(Condition condition) {
    if (next_ == side_->answers.size() && !moved_ && !condition(*world_)) {
      throw NotYet{true};
    }
    (void)Do([](World*) { return 0; });
  }

  void BeginUse(User user) {
    (void)Do([user](World* world) {
      if (world->user != User::kNobody || (user == User::kPooler && world->left_in_use)) {
        world->fault = "two owners";
      }
      world->user = user;
      return 0;
    });
  }
  void EndUse() {
    (void)Do([](World* world) {
      world->user = User::kNobody;
      return 0;
    });
  }
  void Publish(std::uint64_t waiting) {
    (void)Do([waiting](World* world) {
      ++world->published;
      world->waiting = waiting;
      return 0;
    });
  }

 private:
  World* const world_;
  Side* const side_;
  std::size_t next_ = 0;
  bool moved_ = false;
};

// Has no argument for a memory order: weaker ones than the strongest are not what is walked here.
template <std::uint64_t World::*kPlace>
struct FakeAtomic {
  Access* access;

  std::uint64_t load() const {
    return access->Do([](World* world) { return world->*kPlace; });
  }
  void store(std::uint64_t value) {
    (void)access->Do([value](World* world) { return world->*kPlace = value; });
  }
  std::uint64_t fetch_add(std::uint64_t value) {
    return access->Do([value](World* world) {
      world->*kPlace += value;
      return world->*kPlace - value;
    });
  }
  bool compare_exchange_strong(std::uint64_t& expected, std::uint64_t desired) {
    const std::uint64_t wanted = expected;
    expected = access->Do([wanted, desired](World* world) {
      const std::uint64_t old = world->*kPlace;
      world->*kPlace = old == wanted ? desired : old;
      return old;
    });
    return expected == wanted;
  }
};

// What neither side decides by.
struct Unseen {
  void store(std::uint32_t /*value*/) {}
};

struct FakeCell {
  FakeAtomic<&World::word> word;
  FakeAtomic<&World::retakes> retakes;
  Unseen held_us{};
};

struct FakeNode {
  FakeAtomic<&World::waiting> waiting;
};

struct Rules {
  Parked (*park)(FakeCell*, const FakeNode&, std::uint64_t,
                 State) = parking::Park<FakeCell, FakeNode>;
  Retaken (*retake)(FakeCell*, const FakeNode&,
                    std::uint64_t) = parking::Retake<FakeCell, FakeNode>;
  bool (*unpark)(FakeCell*, std::uint64_t) = parking::Unpark<FakeCell>;
  Parked (*give_back)(FakeCell*, const FakeNode&,
                      std::uint64_t) = parking::GiveBack<FakeCell, FakeNode>;
  State (*take)(FakeCell*, std::uint64_t) = parking::Take<FakeCell>;
  bool (*look_again)(FakeCell*, std::uint64_t) = parking::LookAgain<FakeCell>;
  State (*take_or_recall)(FakeCell*, std::uint64_t) = parking::TakeOrRecall<FakeCell>;
  bool publishes_first = true;
  bool resets_first = true;  // and then parks
  bool reads_answer = true;
};

// --- the session --------------------------------------------------------------------------------

enum class Act : std::uint8_t { kPark, kParkBehindReset, kRetake, kUnpark, kGiveBack };
using Acts = std::vector<Act>;

// `reset_sent`, as far as the session knows.
inline void SendRelease(Access* access, bool reset_sent) {
  (void)access->Do([reset_sent](World* world) {
    world->user = User::kNobody;
    world->released = true;
    world->told = reset_sent;
    return 0;
  });
}

inline void ReleaseParked(Access* access, FakeCell* cell, const Rules& rules, bool reset_sent) {
  if (rules.unpark(cell, kLease)) {
    access->BeginUse(User::kSession);
    SendRelease(access, reset_sent);
  }
}

// By the session, which believes that it has the connection.
inline void SendReset(Access* access) {
  (void)access->Do([](World* world) {
    if (world->user == User::kPooler) {
      world->fault = "two owners";
    }
    world->answer_due = true;
    return 0;
  });
}

// By whoever has the connection; `known`: that there is one.
inline void ReadAnswer(Access* access, bool known) {
  (void)access->Do([known](World* world) {
    if (world->answer_due != known) {
      world->fault = known ? "waits for an answer to nothing" : "an answer is left unread";
    }
    world->answer_due = false;
    return 0;
  });
}

// 2n + 1: others wait, as was published last and n-th.
inline std::uint64_t Waiting(Access* access) {
  return access->Do(
      [](World* world) { return world->published * 2 + (world->waiting != 0 ? 1 : 0); });
}

// It holds the lease, and in the end no longer.
inline void RunSession(Access* access, const Rules& rules, const Acts& acts) {
  FakeCell cell{{access}, {access}};
  const FakeNode node{{access}};
  bool parked = false;
  bool reset_sent = false;
  for (Act act : acts) {
    if (act == Act::kPark || act == Act::kParkBehindReset || act == Act::kGiveBack) {
      reset_sent = act == Act::kParkBehindReset;
      if (reset_sent && rules.resets_first) {
        SendReset(access);
      }
      access->EndUse();
      const Parked outcome =
          act == Act::kGiveBack
              ? rules.give_back(&cell, node, kLease)
              : rules.park(&cell, node, kLease, reset_sent ? State::kResetSent : State::kParked);
      if (reset_sent && !rules.resets_first) {
        SendReset(access);
      }
      parked = act != Act::kGiveBack && outcome == Parked::kYes;
      if (act == Act::kGiveBack && outcome != Parked::kNo) {
        return;
      }
      if (outcome == Parked::kNo) {
        access->BeginUse(User::kSession);
        SendRelease(access, reset_sent);
      }
    } else if (act == Act::kRetake) {
      const std::uint64_t before = Waiting(access);
      const Retaken outcome = rules.retake(&cell, node, kLease);
      if (outcome == Retaken::kYes) {
        access->BeginUse(User::kSession);
        if (rules.reads_answer) {
          ReadAnswer(access, std::exchange(reset_sent, false));
        }
        const std::uint64_t after = Waiting(access);
        (void)access->Do([before, after](World* world) {
          if (before % 2 == 1 && before == after) {
            world->fault = "overtakes who waits";
          }
          return 0;
        });
      } else if (outcome == Retaken::kNotNow) {
        ReleaseParked(access, &cell, rules, reset_sent);
      }
      parked = false;
      if (outcome != Retaken::kYes) {
        return;
      }
      continue;
    } else {
      ReleaseParked(access, &cell, rules, reset_sent);
      return;
    }
    if (!parked) {
      return;
    }
  }
  if (!parked) {
    SendRelease(access, false);
  }
}

// --- the pooler ---------------------------------------------------------------------------------

enum class Want : std::uint8_t {
  kServe,       // a ticket waits for it
  kRecall,      // it is to be closed or measured
  kEndSession,  // the session's end was heard of
  kLook,        // nothing, but it has been fresh for long enough
};

// It has the lease, as that stood in its cell; false: it has not.
inline bool HaveTaken(Access* access, State state) {
  if (state == State::kGone) {
    return false;
  }
  access->BeginUse(User::kPooler);
  ReadAnswer(access, state == State::kResetSent);
  return true;
}

// The lease comes by a message, or because the session has ended.
inline void ReceiveBack(Access* access, FakeCell* cell, const Rules& rules) {
  access->Await([](const World& world) { return world.released || world.dead; });
  if (access->Do([](World* world) { return world->released ? 1 : 0; }) != 0) {
    access->BeginUse(User::kPooler);
    ReadAnswer(access, access->Do([](World* world) { return world->told ? 1 : 0; }) != 0);
  } else {
    (void)HaveTaken(access, rules.take(cell, kLease));  // else it is closed
  }
  parking::Free(cell, kLease);
}

inline void RunPooler(Access* access, const Rules& rules, Want want, bool reallot) {
  FakeCell cell{{access}, {access}};
  if (want == Want::kEndSession) {
    access->Await([](const World& world) { return world.dead; });
    ReceiveBack(access, &cell, rules);
  } else if (want == Want::kRecall) {
    if (!HaveTaken(access, rules.take_or_recall(&cell, kLease))) {
      (void)access->Do([](World* world) {
        world->recalled = true;
        return 0;
      });
      ReceiveBack(access, &cell, rules);
    }
  } else if (want == Want::kLook) {
    if (!HaveTaken(access, rules.look_again(&cell, kLease) ? State::kReturned : State::kGone)) {
      ReceiveBack(access, &cell, rules);
    }
  } else {
    if (rules.publishes_first) {
      access->Publish(1);
    }
    const State taken = rules.take(&cell, kLease);
    if (!rules.publishes_first) {
      access->Publish(1);
    }
    if (!HaveTaken(access, taken)) {
      ReceiveBack(access, &cell, rules);
    }
    access->Publish(0);
  }
  if (reallot && !parking::Allot(&cell, kNextLease, false)) {
    (void)access->Do([](World* world) {
      world->fault = "a cell is not free";
      return 0;
    });
  }
}

}  // namespace polarx::parking_walk
