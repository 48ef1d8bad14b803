// Where a simulation is, told when it ends badly; how long it may take; what the environment says.
#pragma once

#include <sys/time.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

namespace polarx {

inline constexpr unsigned kTurnLimitSeconds = 120;

inline std::atomic<std::uint64_t> current_seed = 0;
inline std::atomic<std::uint64_t> current_step = 0;

// A failed assertion, a crash or a turn without end, too, is to be told with its place.
extern "C" inline void TellPlace(int signal) {
  char text[128];
  const int length =
      std::snprintf(text, sizeof(text), "signal %d at POLARX_SIM_SEED=%llu step %llu\n", signal,
                    static_cast<unsigned long long>(current_seed.load()),
                    static_cast<unsigned long long>(current_step.load()));
  (void)!write(STDERR_FILENO, text, static_cast<std::size_t>(length));
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

// Of processor time, so that a busy machine is no failure; 0: no limit.
inline void LimitTurns(unsigned seconds) {
  itimerval limit{};
  limit.it_value.tv_sec = seconds;
  setitimer(ITIMER_PROF, &limit, nullptr);
}

inline std::uint64_t FromEnvironment(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

}  // namespace polarx
