#pragma once
// Which implementation of scaled_dot_product_attention a run takes on a CUDA device: the fastest there, forward and backward,
// at the run's own shape (head size 64 and a few hundred to a few thousand tokens favour one or another by device and
// library version; reference/method.md 4).

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <c10/core/Device.h>

#include "dist/communicator.h"
#include "launch/config.h"

namespace duoflow::launch {

inline constexpr char const* kAttentionBackends[] = {"cudnn", "flash", "efficient"};

struct AttentionShape {
  std::int64_t sequences = 0, heads = 0, tokens = 0, d_head = 0;
};
// The renderer's, of one micro-step of `samples`: what most of a step's attention is spent on.
AttentionShape attention_shape(Config const& config, std::int64_t samples);

// training.attention_backend on a CUDA device: a name is taken, "library" changes nothing, "measured" times each on rank 0
// and every rank takes the fastest (in reproducible mode: as library, whose choice is the same in every run). Sets ATen's
// switches for the process. Returns a line for the log, "" where nothing was done: on other devices always. ConfigError: the
// named one cannot run this shape on this device. Collective; waits for the device, so before the first step.
std::string choose_attention(dist::Communicator const& communicator, Config const& config, AttentionShape const& shape, c10::Device device);

// Milliseconds of each by name, nothing for one that cannot run -> the name of the fastest, "" if none can.
struct TimedBackend {
  std::string name;
  std::optional<double> ms;
};
std::string fastest(std::vector<TimedBackend> const& timed);

}  // namespace duoflow::launch
