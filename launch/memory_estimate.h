#pragma once
// What training with a config takes per rank, part by part, predicted before anything runs (`train --estimate`), so that
// a user knows what fits before a job waits in a queue. Sizes of what lives on the device and, on a GPU, of what stays in
// host memory; on the CPU both are the same memory.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "launch/config.h"

namespace duoflow::launch {

struct MemoryPart {
  std::string name;
  double device_bytes = 0, host_bytes = 0;
};

struct MemoryEstimate {
  std::int64_t parameters = 0, trainable = 0;
  int ranks = 1;
  bool on_cpu = true, fused = true;  // fused: by the operators of model/fused, on a GPU if this program has their kernels
  std::vector<MemoryPart> parts;
  double device_bytes() const;
  double host_bytes() const;
};

// ConfigError: a config that cannot train on so many ranks.
MemoryEstimate estimate_memory(Config const& config, int ranks, bool on_cpu);

// A table of MiB per rank, and what to change when it is too much.
std::string described(MemoryEstimate const& estimate);

// Runs `body`; where memory runs out its error becomes std::runtime_error with that table and the keys that save most.
int with_memory_advice(Config const& config, int ranks, bool on_cpu, std::function<int()> const& body);

}  // namespace duoflow::launch
