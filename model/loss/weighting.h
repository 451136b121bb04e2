#pragma once
// Weighting strategies: from global statistics (or the step alone) to detached weights w_v, w_r. One file each, one
// name table (docs/weighting.md compares them). The objective is lambda_v w_v L_v + lambda_r w_r L_r; the lambdas are
// not known here. When a strategy knows its weights decides what it costs:
//   from the step alone        weights_at()        nothing; a loss of weight 0 is not computed
//   before the forward         standing_weights()  nothing; they follow the statistics of earlier steps
//   at the cut                 weights()           hidden in the renderer's backward (several micro-steps: one editor
//                                                  forward more each)

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

namespace duoflow::model {

struct WeightingOptions {
  std::string name = "fixed";           // one of weighting_names()
  double clamp_min = 0, clamp_max = 0;  // of adaptive strategies: bounds of a raw weight, before the EMA; max 0: none
  bool lagged = false;  // strategies that know their weights at the cut: the last step's instead (1 before the first)
  double ema = 0;       // adaptive strategies: w <- ema * previous + (1-ema) * w; 0: off
  std::int64_t warmup_steps = 1000;  // schedule
  std::string schedule_form =
      "step";  // step: start value before warmup_steps, end value from there on; linear: from one to the other
  double velocity_start = 2.0, velocity_end = 0.5, render_start = 0.5, render_end = 2.0;
  std::int64_t velocity_only_steps = 1000;  // two_stage: where its second stage begins
  std::int64_t alternating_period = 1;      // alternating: steps of one loss before those of the other
  double uncertainty_lr = 0.01;             // uncertainty: learning rate of the log-variances
  // gradient_balance: measured at v_pred in every step (0), or over the editor's parameters in every n-th (n).
  std::int64_t parameter_interval = 0;
  bool exposed = false;  // gradient_balance at v_pred: of this step's own norms, which are waited for behind everything
};

struct LossWeights {  // fp32 scalars on the device
  at::Tensor velocity, render;
};

// Squared norms of the gradients of the bare losses (no lambda, no weight), global; fp64 scalars on the device.
struct GradientSquares {
  at::Tensor velocity, render;
};
enum class GradientSpace {
  at_v_pred,        // of all samples' v_pred together; reduced with the next step's statistics
  at_v_pred_now,    // the same, reduced by themselves before the step's weights are asked for
  over_parameters,  // of the editor's parameters; a backward of its own
};

// What goes into the editor where the two weighted gradients meet (loss/cut.h).
enum class CutRule { sum, sum_without_conflict, velocity_alone };

class Weighting {
 public:
  virtual ~Weighting() = default;
  // True when weights() takes the step's global losses: awaited at the cut, or, where standing_weights() has an answer,
  // after the step.
  virtual bool needs_statistics() const = 0;
  // Whether it makes no sense with one of the losses switched off.
  virtual bool needs_both_losses() const { return needs_statistics(); }
  // Weights known before the forward: (step) -> {w_v, w_r}; only when !needs_statistics() (std::logic_error otherwise).
  virtual std::pair<double, double> weights_at(std::int64_t step) const = 0;
  // Of strategies with statistics that do not wait for them: the weights of this step, before its forward.
  virtual std::optional<LossWeights> standing_weights() const { return std::nullopt; }
  // w_r where a number on the host says it before the forward: the factor at the root of the renderer's backward. Else
  // it is in standing_weights(), or comes with weights(): too late for that backward, whose gradients it then
  // multiplies.
  virtual std::optional<double> known_render_weight(std::int64_t step) const { return weights_at(step).second; }
  // Global mean losses (fp64 scalars on device) -> weights; `finite` (fp64 0/1 scalar): where 0 the state is left as it
  // was. Only when needs_statistics() (std::logic_error otherwise). Call once per step, with the same numbers on every
  // rank.
  virtual LossWeights weights(at::Tensor const& velocity_loss, at::Tensor const& render_loss,
                              at::Tensor const& finite) = 0;
  // Whether observe() wants the gradients of this step, measured in this space.
  virtual bool observes(GradientSpace, std::int64_t /*step*/) const { return false; }
  // `valid` (fp64 0/1 scalar): where 0, or where a square is 0 (a loss that was not computed), nothing is learned.
  virtual void observe(GradientSquares const&, at::Tensor const& /*valid*/) {}
  virtual CutRule cut_rule() const { return CutRule::sum; }
  // Whether the step's number alone changes what is computed: weights_at(), known_render_weight() or observes() have
  // other answers in some steps than in others. Such steps cannot be recorded once and replayed.
  virtual bool depends_on_step() const { return false; }
  // State tensors (device) for the checkpoint, by name; empty for stateless strategies. The tensors are the live ones:
  // copying into them restores the strategy, and putting an older copy back undoes weights() and observe().
  virtual std::vector<std::pair<std::string, at::Tensor>> state() const { return {}; }
};

// std::invalid_argument naming the valid names for an unknown one, or an option that the strategy would not act on.
std::unique_ptr<Weighting> make_weighting(WeightingOptions const& options, at::Device device);
std::vector<std::string> weighting_names();

}  // namespace duoflow::model
