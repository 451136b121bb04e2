#pragma once
// The constructors that weighting.cpp's table lists. Each validates the options it reads.

#include "model/loss/weighting.h"

namespace duoflow::model {

std::unique_ptr<Weighting> make_weighting_fixed(WeightingOptions const& options, at::Device device);
std::unique_ptr<Weighting> make_weighting_normalized(WeightingOptions const& options, at::Device device);
std::unique_ptr<Weighting> make_weighting_schedule(WeightingOptions const& options, at::Device device);

// `inner`, one step late.
std::unique_ptr<Weighting> make_weighting_lagged(std::unique_ptr<Weighting> inner, at::Device device);

// Base of the strategies that depend on the step alone.
class StepWeighting : public Weighting {
 public:
  bool needs_statistics() const final { return false; }
  LossWeights weights(at::Tensor const&, at::Tensor const&, at::Tensor const&) final;
};

}  // namespace duoflow::model
