// What the benchmark's programs share: clocks, percentiles, CPU time of others, their output.
#pragma once

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <string>
#include <vector>

namespace bench {

inline double ClockUs(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) * 1e6 + static_cast<double>(now.tv_nsec) / 1e3;
}

inline double NowUs() { return ClockUs(CLOCK_MONOTONIC); }

inline void SleepUs(double us) {
  const timespec length{static_cast<time_t>(us / 1e6), static_cast<long>(us * 1e3) % 1000000000L};
  clock_nanosleep(CLOCK_MONOTONIC, 0, &length, nullptr);
}

[[noreturn]] inline void Die(const std::string& message) {
  std::fprintf(stderr, "%s\n", message.c_str());
  std::exit(1);
}

inline double Percentile(std::vector<double>& values, double part) {
  if (values.empty()) {
    return 0;
  }
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(static_cast<double>(values.size() - 1) * part)];
}

// CPU time so far of the main thread of a process; 0 for no process.
inline double MainThreadCpuUs(int pid) {
  double ns = 0;
  if (pid > 0) {
    const std::string name = std::to_string(pid);
    std::ifstream("/proc/" + name + "/task/" + name + "/schedstat") >> ns;
  }
  return ns / 1e3;
}

// The line that run.sh reads; what is not meaningful is negative and becomes a dash.
inline void PrintLine(double p50_us, double p99_us, double per_second, double cpu_us) {
  for (const double value : {p50_us, p99_us, per_second, cpu_us}) {
    if (value < 0) {
      std::printf("- ");
    } else {
      std::printf("%.3f ", value);
    }
  }
  std::printf("\n");
}

}  // namespace bench
