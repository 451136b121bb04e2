#pragma once
// Weighting strategies: from global statistics (or the step alone) to detached weights w_v, w_r. One file each, one name table.

#include <cstdint>
#include <memory>
#include <string>

#include <ATen/core/Tensor.h>
#include <nlohmann/json_fwd.hpp>

namespace duoflow::model {

struct WeightingOptions {
  std::string name = "fixed";          // fixed | normalized | schedule
  double clamp_min = 0, clamp_max = 0;  // of w; max 0: no clamp
  double ema = 0;                       // w <- ema * previous + (1-ema) * w; 0: off
  std::int64_t warmup_steps = 1000;     // schedule
  std::string schedule_form = "step";   // step | linear
  double velocity_start = 2.0, velocity_end = 0.5, render_start = 0.5, render_end = 2.0;
};

struct LossWeights {       // fp32 scalars on the device
  at::Tensor velocity, render;
};

class Weighting {
 public:
  virtual ~Weighting() = default;
  // True when weights() needs the current step's global losses (they are then awaited at the cut, not before).
  virtual bool needs_statistics() const = 0;
  // Weights known before the forward: (step) -> {w_v, w_r}; only when !needs_statistics().
  virtual std::pair<double, double> weights_at(std::int64_t step) const = 0;
  // Global mean losses (fp64 scalars on device) -> weights; `finite` (fp64 0/1 scalar): where 0 the state is left as it was.
  virtual LossWeights weights(at::Tensor const& velocity_loss, at::Tensor const& render_loss, at::Tensor const& finite) = 0;
  // State tensors (device) for the checkpoint, by name; empty for stateless strategies.
  virtual std::vector<std::pair<std::string, at::Tensor>> state() const { return {}; }
};

// std::invalid_argument naming the valid names for an unknown one.
std::unique_ptr<Weighting> make_weighting(WeightingOptions const& options, at::Device device);

}  // namespace duoflow::model
