// gradient_balance: w_v = |g_r| / |g_v|, w_r = 1, with g the gradients of the bare losses, so that the weighted ones
// are as long as each other times lambda_r : lambda_v (the adaptive weight of VQGAN, Esser et al. 2021,
// arXiv:2012.09841, with the velocity loss as the term that adapts, as in normalized). Equal losses need not pull
// alike; equal gradients do. Two places to measure:
//   at v_pred (default): the norms that are logged anyway, of the step before: they are reduced along with the next
//     statistics, so they cost nothing. v_pred is a proxy for what follows, the editor's parameters. Known at the cut.
//   over the editor's parameters (parameter_interval n > 0): in every n-th step the velocity loss has an editor
//     forward, backward and reduction of its own, and the render loss's gradient is the difference. Known before the
//     forward. The difference holds what the backward's precision leaves of it: in bf16, where the weighted render
//     gradient is below about a hundredth of the velocity's, it is mostly rounding.
//   at v_pred, exposed: this step's own norms, which exist only behind the renderer's backward: their reduction is one
//     more collective and hides behind nothing. Not a step late, which counts where batches differ and there is no EMA.
// For losses whose gradients differ by more than their values do; give it an
// EMA (0.8 or more) and a clamp, since the norms are those of one batch.

#include <stdexcept>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "model/loss/smoothed_weight.h"
#include "model/loss/weighting_strategies.h"

namespace duoflow::model {

namespace {

class GradientBalanceWeighting : public StatisticsWeighting {
 public:
  GradientBalanceWeighting(WeightingOptions const& options, at::Device device)
      : interval_(options.parameter_interval),
        exposed_(options.exposed),
        velocity_("balance_velocity_weight", options, device) {}

  std::optional<double> known_render_weight(std::int64_t) const override { return 1; }
  std::optional<LossWeights> standing_weights() const override {
    return interval_ > 0 ? std::optional(now()) : std::nullopt;
  }
  LossWeights weights(at::Tensor const&, at::Tensor const&, at::Tensor const&) override { return now(); }

  bool observes(GradientSpace space, std::int64_t step) const override {
    if (space == GradientSpace::over_parameters) return interval_ > 0 && step % interval_ == 0;
    return interval_ == 0 && exposed_ == (space == GradientSpace::at_v_pred_now);
  }
  bool depends_on_step() const override { return interval_ > 1; }
  void observe(GradientSquares const& bare, at::Tensor const& valid) override {
    at::NoGradGuard const detached;
    at::Tensor const good = (valid > 0)
                                .logical_and(bare.velocity > 0)
                                .logical_and(bare.render > 0)
                                .logical_and(at::isfinite(bare.velocity))  // else the ratio would be 0
                                .logical_and(at::isfinite(bare.render));   // else the clamp would make a number of it
    velocity_.absorb(at::sqrt(bare.render) / at::sqrt(bare.velocity), good.to(at::kDouble));
  }

  std::vector<std::pair<std::string, at::Tensor>> state() const override {
    std::vector<std::pair<std::string, at::Tensor>> all;
    velocity_.add_state(all);
    return all;
  }

 private:
  LossWeights now() const {
    at::Tensor const velocity = velocity_.value();
    return {velocity, at::ones_like(velocity)};
  }

  std::int64_t interval_;
  bool exposed_;
  SmoothedWeight velocity_;
};

}  // namespace

std::unique_ptr<Weighting> make_weighting_gradient_balance(WeightingOptions const& options, at::Device device) {
  if (options.parameter_interval < 0) {
    throw std::invalid_argument(fmt::format(
        "gradient_balance measures over parameters in every {}th step, use 0 or more", options.parameter_interval));
  }
  if (options.exposed && options.parameter_interval > 0)
    throw std::invalid_argument(
        "gradient_balance over parameters has no exposed statistics (it measures at intervals), use current");
  return std::make_unique<GradientBalanceWeighting>(options, device);
}

}  // namespace duoflow::model
