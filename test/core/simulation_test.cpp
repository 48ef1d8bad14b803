// Everything that can happen to the pools, at random and all together: the
// rules hold after every turn, and when the trouble ends every request gets its
// answer and the pools come to rest.
//
// In a large world it takes long to look at everything: every hundredth turn
// that is done, and after each of the others all sizes and queues, one node and
// some sessions.
//
// POLARX_SIM_SEED, POLARX_SIM_STEPS and POLARX_SIM_CLIENTS choose another
// course, a longer and a larger one.
#include <gtest/gtest.h>

#include <csignal>
#include <stdexcept>

#include "simulation_driver.h"
#include "simulation_place.h"

namespace polarx {
namespace {

// Tells a failure with the place at which it is found again.
template <typename Course>
void Play(const Course& course) {
  for (int signal : {SIGABRT, SIGSEGV, SIGPROF}) {
    std::signal(signal, TellPlace);
  }
  current_step = 0;
  try {
    course();
  } catch (const std::runtime_error& error) {
    ADD_FAILURE() << error.what() << "; POLARX_SIM_SEED=" << current_seed << " step "
                  << current_step;
  }
  LimitTurns(0);
  for (int signal : {SIGABRT, SIGSEGV, SIGPROF}) {
    std::signal(signal, SIG_DFL);
  }
}

TEST(SimulationTest, TheRulesHoldWhateverHappens) {
  constexpr int kStepsBetweenRests = 4000;
  current_seed = FromEnvironment("POLARX_SIM_SEED", 1);
  const std::uint64_t steps = FromEnvironment("POLARX_SIM_STEPS", 50000);
  Driver driver(current_seed);
  Play([&] {
    while (current_step < steps) {
      LimitTurns(kTurnLimitSeconds);
      driver.Steps(kStepsBetweenRests);
      driver.Rest();
    }
  });
  EXPECT_GT(driver.grants(), static_cast<int>(steps / 100));
  EXPECT_GT(driver.retakes(), static_cast<int>(steps / 500));
  EXPECT_GT(driver.returns(), static_cast<int>(steps / 2000));
  EXPECT_GT(driver.steady_retakes(), static_cast<int>(steps / 500));
}

// Tens of nodes and, where POLARX_SIM_CLIENTS says so, thousands of sessions:
// 9000 come to more than 10000 slots.
TEST(SimulationTest, TheRulesHoldInALargeWorld) {
  constexpr int kRounds = 2;
  constexpr int kStepsOfARound = 150;
  constexpr unsigned kCheckEvery = 100;
  current_seed = FromEnvironment("POLARX_SIM_SEED", 1);
  const auto clients = static_cast<int>(FromEnvironment("POLARX_SIM_CLIENTS", 360));
  const Simulation::Scale scale{.nodes = 30,
                                .clients = clients,
                                .slots = clients / 6,
                                .tick = std::chrono::microseconds(100)};
  Driver driver(current_seed, scale, kCheckEvery);
  Play([&] {
    for (int round = 0; round < kRounds; ++round) {
      LimitTurns(kTurnLimitSeconds);
      driver.Crowd();
      driver.Steps(kStepsOfARound);
      driver.Rest();
    }
  });
  EXPECT_GT(driver.grants(), 2 * clients);
  EXPECT_GT(driver.retakes(), 20 * clients);
  EXPECT_GE(driver.most_slots(), clients * 10 / 9);
}

}  // namespace
}  // namespace polarx
