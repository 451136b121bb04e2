// What does a joint micro-step of this config take in activations, and in time?
//
//   build/activation_memory [--time N] CONFIG [key=value]...
//
// MiB, the allocator's own count, not the process's size; with --time also the median of N steps in ms, on
// OMP_NUM_THREADS threads. The cached-latents objective on random batches, on the CPU. benchmarks/memory/table.sh and
// growth.py make tables of it.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "benchmarks/memory/activation_memory.h"

namespace {

using namespace duoflow::launch;

double median_ms(Config const& config, int steps) {
  OneJointStep step(config);
  step.run();  // warms up
  std::vector<double> times;
  for (int i = 0; i < steps; ++i) {
    auto const begin = std::chrono::steady_clock::now();
    step.run();
    times.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count());
  }
  std::nth_element(times.begin(), times.begin() + steps / 2, times.end());
  return times[static_cast<std::size_t>(steps / 2)];
}

}  // namespace

int main(int count, char** words) {
  try {
    std::vector<std::string> rest(words + 1, words + count);
    int steps = 0;
    if (rest.size() > 2 && rest[0] == "--time") {
      steps = std::stoi(rest[1]);
      rest.erase(rest.begin(), rest.begin() + 2);
    }
    if (rest.empty()) throw ConfigError("usage: activation_memory [--time N] CONFIG [key=value]...");
    auto const config = load_config(rest[0], std::vector<std::string>(rest.begin() + 1, rest.end()));
    std::printf("%.1f", static_cast<double>(peak_of_joint_step(config)) / (1 << 20));
    if (steps > 0) std::printf(" %.2f", median_ms(config, steps));
    std::printf("\n");
    return 0;
  } catch (std::exception const& error) {
    std::fprintf(stderr, "activation_memory: %s\n", error.what());
    return 2;
  }
}
