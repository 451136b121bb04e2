// normalized_each: w_v = 1 / (L_v + 1e-8), w_r = 1 / (L_r + 1e-8), each loss over its own detached global value (the
// alternative of the method's strategy document). Each weighted loss is 1 by construction and its gradient that of
// log L: relative progress counts alike in both, and the gradient neither fades as the losses fall nor depends on their
// units. For runs in which both losses fall by orders of magnitude; the step size is then the learning rate's alone, so
// let it decay, and clamp the weights where a loss may reach zero. w_r is known at the cut, after the renderer's
// backward: it multiplies g_render there, and a trainable renderer's gradients once after their reduction.

#include <ATen/ATen.h>

#include "model/loss/smoothed_weight.h"
#include "model/loss/weighting_strategies.h"

namespace duoflow::model {

namespace {

constexpr double kEpsilon = 1e-8;  // the method's

class NormalizedEachWeighting : public StatisticsWeighting {
 public:
  NormalizedEachWeighting(WeightingOptions const& options, at::Device device)
      : velocity_("each_velocity_weight", options, device), render_("each_render_weight", options, device) {}

  LossWeights weights(at::Tensor const& velocity_loss, at::Tensor const& render_loss,
                      at::Tensor const& finite) override {
    at::NoGradGuard const detached;
    velocity_.absorb(1 / (velocity_loss + kEpsilon), finite);
    render_.absorb(1 / (render_loss + kEpsilon), finite);
    return {velocity_.value(), render_.value()};
  }

  std::vector<std::pair<std::string, at::Tensor>> state() const override {
    std::vector<std::pair<std::string, at::Tensor>> all;
    velocity_.add_state(all);
    render_.add_state(all);
    return all;
  }

 private:
  SmoothedWeight velocity_, render_;
};

}  // namespace

std::unique_ptr<Weighting> make_weighting_normalized_each(WeightingOptions const& options, at::Device device) {
  return std::make_unique<NormalizedEachWeighting>(options, device);
}

}  // namespace duoflow::model
