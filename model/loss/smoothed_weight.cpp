#include "model/loss/smoothed_weight.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include <ATen/ATen.h>
#include <fmt/format.h>

namespace duoflow::model {

void check_clamp(WeightingOptions const& options) {
  double const low = options.clamp_min, high = options.clamp_max;
  if (!std::isfinite(low) || !std::isfinite(high) || low < 0 || high < low) {
    throw std::invalid_argument(
        fmt::format("the weight clamp is [{}, {}], use 0 <= min <= max (max 0: no clamp)", low, high));
  }
}

double first_weight(WeightingOptions const& options) {
  return options.clamp_max > 0 ? std::min(std::max(1.0, options.clamp_min), options.clamp_max) : 1.0;
}

SmoothedWeight::SmoothedWeight(std::string name, WeightingOptions const& options, at::Device device)
    : name_(std::move(name)),
      clamp_min_(options.clamp_min),
      clamp_max_(options.clamp_max),
      ema_(options.ema),
      value_(at::full({}, first_weight(options), at::TensorOptions(at::kDouble).device(device))),
      started_(at::zeros({}, at::TensorOptions(at::kDouble).device(device))) {
  check_clamp(options);
  if (!(ema_ >= 0 && ema_ < 1)) {
    throw std::invalid_argument(fmt::format("the weight EMA is {}, use 0 <= ema < 1", ema_));
  }
}

void SmoothedWeight::absorb(at::Tensor const& raw, at::Tensor const& good) {
  at::Tensor const clamped = clamp_max_ > 0 ? raw.clamp(clamp_min_, clamp_max_) : raw;
  at::Tensor const smooth = at::where(started_ > 0, ema_ * value_ + (1 - ema_) * clamped, clamped);
  // Selected, not multiplied by a flag: NaN times zero would still be NaN.
  at::Tensor const takes = (good > 0).logical_and(at::isfinite(smooth));
  value_.copy_(at::where(takes, smooth, value_));
  started_.copy_(at::where(takes, at::ones_like(started_), started_));
}

at::Tensor SmoothedWeight::value() const { return value_.to(at::kFloat); }

void SmoothedWeight::add_state(std::vector<std::pair<std::string, at::Tensor>>& state) const {
  state.emplace_back(name_, value_);
  state.emplace_back(name_ + "_started", started_);
}

}  // namespace duoflow::model
