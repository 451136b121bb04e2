// normalized: w_v = L_r / (L_v + 1e-8), w_r = 1, with both losses global and detached (the method's strategy 2). The
// velocity loss is brought to the size of the render loss, so the weighted losses are equal whatever happens: watch the
// raw losses and grad_ratio, not velocity_loss_ratio. For runs whose losses differ by orders of magnitude; w_v grows
// without bound as L_v falls, so give it a clamp, and an EMA against the batch's noise. Known at the cut.

#include <ATen/ATen.h>

#include "model/loss/smoothed_weight.h"
#include "model/loss/weighting_strategies.h"

namespace duoflow::model {

namespace {

constexpr double kEpsilon = 1e-8;  // the method's

class NormalizedWeighting : public StatisticsWeighting {
 public:
  NormalizedWeighting(WeightingOptions const& options, at::Device device)
      : velocity_("velocity_weight", options, device) {}

  std::optional<double> known_render_weight(std::int64_t) const override { return 1; }

  LossWeights weights(at::Tensor const& velocity_loss, at::Tensor const& render_loss,
                      at::Tensor const& finite) override {
    at::NoGradGuard const detached;
    velocity_.absorb(render_loss / (velocity_loss + kEpsilon), finite);
    at::Tensor const velocity = velocity_.value();
    return {velocity, at::ones_like(velocity)};
  }

  std::vector<std::pair<std::string, at::Tensor>> state() const override {
    std::vector<std::pair<std::string, at::Tensor>> all;
    velocity_.add_state(all);
    return all;
  }

 private:
  SmoothedWeight velocity_;
};

}  // namespace

std::unique_ptr<Weighting> make_weighting_normalized(WeightingOptions const& options, at::Device device) {
  return std::make_unique<NormalizedWeighting>(options, device);
}

}  // namespace duoflow::model
