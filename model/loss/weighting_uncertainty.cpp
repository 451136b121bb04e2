// uncertainty: w_v = exp(-s_v), w_r = exp(-s_r) with learned log-variances s (Kendall, Gal and Cipolla 2018,
// arXiv:1705.07115), which minimise exp(-s) L + s by gradient descent of their own:
//   s <- s - uncertainty_lr * clip(1 - exp(-s) L, -1, 1),   s = 0 at first
// with L the step's global loss; the lambdas stay outside, else s would undo them. At rest exp(-s) = 1 / L, as
// normalized_each has it at once, but averaged over about 1 / uncertainty_lr steps; the clip bounds what one bad batch
// can do to s by uncertainty_lr. The paper's factor 1/2 is in the lambdas. A step uses the s of the step before, so the
// weights are known before the forward and nothing is waited for. The clamp bounds exp(-s) by bounding s; an EMA on top
// would only be a second uncertainty_lr. total_loss in the log is without the terms + s. For long runs whose losses are
// to find their own balance; slow where a loss is far from 1 at first (|log L| / uncertainty_lr steps to get there).

#include <cmath>
#include <stdexcept>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "model/loss/smoothed_weight.h"
#include "model/loss/weighting_strategies.h"

namespace duoflow::model {

namespace {

class UncertaintyWeighting : public StatisticsWeighting {
 public:
  UncertaintyWeighting(WeightingOptions const& options, at::Device device)
      : rate_(options.uncertainty_lr), log_variances_(at::zeros({2}, at::TensorOptions(at::kDouble).device(device))) {
    if (options.clamp_max > 0) lowest_ = -std::log(options.clamp_max);
    if (options.clamp_max > 0 && options.clamp_min > 0) highest_ = -std::log(options.clamp_min);
    log_variances_.copy_(bounded(log_variances_));
  }

  std::optional<LossWeights> standing_weights() const override {
    at::Tensor const weights = at::exp(-log_variances_).to(at::kFloat);
    return LossWeights{weights.select(0, 0), weights.select(0, 1)};
  }

  LossWeights weights(at::Tensor const& velocity_loss, at::Tensor const& render_loss,
                      at::Tensor const& finite) override {
    at::NoGradGuard const detached;
    LossWeights const standing = *standing_weights();
    at::Tensor const losses = at::stack({velocity_loss, render_loss});
    at::Tensor const gradient = (1 - at::exp(-log_variances_) * losses).clamp(-1, 1);
    // Asked of the losses: the clamp makes finite numbers of infinite ones.
    at::Tensor const good = (finite > 0).logical_and(at::isfinite(losses).all());
    log_variances_.copy_(at::where(good, bounded(log_variances_ - rate_ * gradient), log_variances_));
    return standing;
  }

  std::vector<std::pair<std::string, at::Tensor>> state() const override { return {{"log_variances", log_variances_}}; }

 private:
  at::Tensor bounded(at::Tensor const& s) const {
    if (!lowest_) return s;
    return highest_ ? s.clamp(*lowest_, *highest_) : s.clamp_min(*lowest_);
  }

  double rate_;
  std::optional<double> lowest_, highest_;  // of s; nothing: no bound
  at::Tensor log_variances_;                // fp64 [2]: s_v, s_r
};

}  // namespace

std::unique_ptr<Weighting> make_weighting_uncertainty(WeightingOptions const& options, at::Device device) {
  check_clamp(options);
  if (!(options.uncertainty_lr > 0 && options.uncertainty_lr <= 1)) {
    throw std::invalid_argument(fmt::format("uncertainty_lr is {}, use 0 < rate <= 1", options.uncertainty_lr));
  }
  return std::make_unique<UncertaintyWeighting>(options, device);
}

}  // namespace duoflow::model
