#pragma once
// The constructors that weighting.cpp's table lists, and the bases of strategies of one kind. Each constructor
// validates the options it reads.

#include "model/loss/weighting.h"

namespace duoflow::model {

std::unique_ptr<Weighting> make_weighting_fixed(WeightingOptions const& options, at::Device device);
std::unique_ptr<Weighting> make_weighting_normalized(WeightingOptions const& options, at::Device device);
std::unique_ptr<Weighting> make_weighting_normalized_each(WeightingOptions const& options, at::Device device);
std::unique_ptr<Weighting> make_weighting_schedule(WeightingOptions const& options, at::Device device);
std::unique_ptr<Weighting> make_weighting_two_stage(WeightingOptions const& options, at::Device device);
std::unique_ptr<Weighting> make_weighting_alternating(WeightingOptions const& options, at::Device device);
std::unique_ptr<Weighting> make_weighting_separate_graphs(WeightingOptions const& options, at::Device device);
std::unique_ptr<Weighting> make_weighting_uncertainty(WeightingOptions const& options, at::Device device);
std::unique_ptr<Weighting> make_weighting_gradient_balance(WeightingOptions const& options, at::Device device);
std::unique_ptr<Weighting> make_weighting_pcgrad(WeightingOptions const& options, at::Device device);

// `inner`, one step late; adaptive weights are `first` before any step.
std::unique_ptr<Weighting> make_weighting_lagged(std::unique_ptr<Weighting> inner, double first, at::Device device);

// Base of the strategies that depend on the step alone.
class StepWeighting : public Weighting {
 public:
  bool needs_statistics() const final { return false; }
  LossWeights weights(at::Tensor const&, at::Tensor const&, at::Tensor const&) final;
};

// Base of the strategies whose weights follow statistics.
class StatisticsWeighting : public Weighting {
 public:
  bool needs_statistics() const final { return true; }
  std::pair<double, double> weights_at(std::int64_t) const final;
  std::optional<double> known_render_weight(std::int64_t) const override { return std::nullopt; }
};

}  // namespace duoflow::model
