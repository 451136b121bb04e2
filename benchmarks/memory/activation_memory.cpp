// What does a joint micro-step of this config take in activations?
//
//   build/activation_memory CONFIG [key=value]...      one number, MiB; benchmarks/memory/table.sh makes the table
//
// The cached-latents objective on random batches, on the CPU: the allocator's own count, not the process's size.

#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "benchmarks/memory/activation_memory.h"

int main(int count, char** words) {
  using namespace duoflow::launch;
  try {
    if (count < 2) throw ConfigError("usage: activation_memory CONFIG [key=value]...");
    auto const config = load_config(words[1], std::vector<std::string>(words + 2, words + count));
    std::printf("%.1f\n", static_cast<double>(peak_of_joint_step(config)) / (1 << 20));
    return 0;
  } catch (std::exception const& error) {
    std::fprintf(stderr, "activation_memory: %s\n", error.what());
    return 2;
  }
}
