#include <cmath>
#include <stdexcept>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "model/loss/weighting_strategies.h"

namespace duoflow::model {

namespace {

constexpr double kEpsilon = 1e-8;  // the method's

// w_v brings the velocity loss to the size of the render loss (the method's strategy 2), with both losses global.
class NormalizedWeighting : public Weighting {
 public:
  NormalizedWeighting(WeightingOptions const& options, at::Device device)
      : options_(options),
        value_(at::ones({}, at::TensorOptions(at::kDouble).device(device))),
        started_(at::zeros({}, at::TensorOptions(at::kDouble).device(device))) {}

  bool needs_statistics() const override { return true; }
  std::pair<double, double> weights_at(std::int64_t) const override {
    throw std::logic_error("weights_at() of weighting 'normalized', whose weights follow the losses, call weights()");
  }
  double known_render_weight(std::int64_t) const override { return 1; }

  LossWeights weights(at::Tensor const& velocity_loss, at::Tensor const& render_loss,
                      at::Tensor const& finite) override {
    at::NoGradGuard const detached;
    at::Tensor raw = render_loss / (velocity_loss + kEpsilon);
    if (options_.clamp_max > 0) raw = raw.clamp(options_.clamp_min, options_.clamp_max);
    at::Tensor const smooth = at::where(started_ > 0, options_.ema * value_ + (1 - options_.ema) * raw, raw);
    // Selected, not multiplied by a flag: NaN times zero would still be NaN.
    at::Tensor const good = (finite > 0).logical_and(at::isfinite(smooth));
    value_.copy_(at::where(good, smooth, value_));
    started_.copy_(at::where(good, at::ones_like(started_), started_));
    return {value_.to(at::kFloat), at::ones({}, value_.options().dtype(at::kFloat))};
  }

  std::vector<std::pair<std::string, at::Tensor>> state() const override {
    return {{"velocity_weight", value_}, {"velocity_weight_started", started_}};
  }

 private:
  WeightingOptions options_;
  at::Tensor value_;    // fp64: the last finite w_v, 1 before the first
  at::Tensor started_;  // fp64 0/1: whether value_ came from a loss
};

void check(WeightingOptions const& options) {
  double const low = options.clamp_min, high = options.clamp_max;
  if (!std::isfinite(low) || !std::isfinite(high) || low < 0 || high < low) {
    throw std::invalid_argument(
        fmt::format("the weight clamp is [{}, {}], use 0 <= min <= max (max 0: no clamp)", low, high));
  }
  if (!(options.ema >= 0 && options.ema < 1)) {
    throw std::invalid_argument(fmt::format("the weight EMA is {}, use 0 <= ema < 1", options.ema));
  }
}

}  // namespace

std::unique_ptr<Weighting> make_weighting_normalized(WeightingOptions const& options, at::Device device) {
  check(options);
  return std::make_unique<NormalizedWeighting>(options, device);
}

}  // namespace duoflow::model
