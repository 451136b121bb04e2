#pragma once
// One adaptive weight on the device: what the statistics say, clamped, then averaged over the steps.
//
//   w <- ema * w + (1 - ema) * clamp(raw),   and w <- clamp(raw) at first
// A step that is not good, or whose result is not finite, leaves the weight as it was.

#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include "model/loss/weighting.h"

namespace duoflow::model {

class SmoothedWeight {
 public:
  // `name`: of its state. Throws std::invalid_argument for a clamp or an EMA outside their range.
  SmoothedWeight(std::string name, WeightingOptions const& options, at::Device device);

  void absorb(at::Tensor const& raw, at::Tensor const& good);  // fp64 scalars; good: 0 or 1
  at::Tensor value() const;                                    // fp32 scalar of its own; first_weight() before the first good step
  void add_state(std::vector<std::pair<std::string, at::Tensor>>& state) const;  // the live tensors

 private:
  std::string name_;
  double clamp_min_, clamp_max_, ema_;
  at::Tensor value_;    // fp64
  at::Tensor started_;  // fp64 0/1: whether value_ came from a step
};

// A weight before there are statistics: 1, or the bound next to it.
double first_weight(WeightingOptions const& options);

// clamp_min and clamp_max alone; std::invalid_argument as above.
void check_clamp(WeightingOptions const& options);

}  // namespace duoflow::model
