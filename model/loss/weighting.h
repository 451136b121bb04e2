#pragma once
// Weighting strategies: from global statistics (or the step alone) to detached weights w_v, w_r. One file each, one
// name table. The objective is lambda_v w_v L_v + lambda_r w_r L_r; the lambdas are not known here.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

namespace duoflow::model {

struct WeightingOptions {
  std::string name = "fixed";           // fixed (1, 1) | normalized (w_v = L_r / (L_v + 1e-8), w_r = 1) | schedule
  double clamp_min = 0, clamp_max = 0;  // normalized: bounds of the raw w_v, before the EMA; max 0: no clamp
  bool lagged = false;  // normalized: the weights that the last step's statistics gave (1 before the first)
  double ema = 0;       // normalized: w <- ema * previous + (1-ema) * w; 0: off
  std::int64_t warmup_steps = 1000;  // schedule
  std::string schedule_form =
      "step";  // step: start value before warmup_steps, end value from there on; linear: from one to the other
  double velocity_start = 2.0, velocity_end = 0.5, render_start = 0.5, render_end = 2.0;
};

struct LossWeights {  // fp32 scalars on the device
  at::Tensor velocity, render;
};

class Weighting {
 public:
  virtual ~Weighting() = default;
  // True when weights() needs the current step's global losses (they are then awaited at the cut, not before).
  virtual bool needs_statistics() const = 0;
  // Weights known before the forward: (step) -> {w_v, w_r}; only when !needs_statistics() (std::logic_error otherwise).
  virtual std::pair<double, double> weights_at(std::int64_t step) const = 0;
  // Of strategies with statistics that do not wait for them: the weights of this step, before its forward.
  virtual std::optional<LossWeights> standing_weights() const { return std::nullopt; }
  // w_r, which every strategy knows before the forward: it multiplies the root of the renderer's backward.
  virtual double known_render_weight(std::int64_t step) const { return weights_at(step).second; }
  // Global mean losses (fp64 scalars on device) -> weights; `finite` (fp64 0/1 scalar): where 0 the state is left as it
  // was. Only when needs_statistics() (std::logic_error otherwise). Call once per step, with the same numbers on every
  // rank.
  virtual LossWeights weights(at::Tensor const& velocity_loss, at::Tensor const& render_loss,
                              at::Tensor const& finite) = 0;
  // State tensors (device) for the checkpoint, by name; empty for stateless strategies. The tensors are the live ones:
  // copying into them restores the strategy, and putting an older copy back undoes weights().
  virtual std::vector<std::pair<std::string, at::Tensor>> state() const { return {}; }
};

// std::invalid_argument naming the valid names for an unknown one, or an option that the strategy would not act on.
std::unique_ptr<Weighting> make_weighting(WeightingOptions const& options, at::Device device);

}  // namespace duoflow::model
