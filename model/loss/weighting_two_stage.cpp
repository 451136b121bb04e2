// two_stage: w = (1, 0) before step velocity_only_steps, (1, 1) from there on (the method's two-stage training; its
// second stage here goes on with the velocity loss, so that the flow does not drift from x1 - x0). The first stage
// renders nothing and costs about a cached-latent flow step. For an editor that starts from nothing: the renderer says
// little about tokens that are no scene yet.

#include <stdexcept>

#include <fmt/format.h>

#include "model/loss/weighting_strategies.h"

namespace duoflow::model {

namespace {

class TwoStageWeighting : public StepWeighting {
 public:
  explicit TwoStageWeighting(std::int64_t velocity_only_steps) : velocity_only_steps_(velocity_only_steps) {}
  bool needs_both_losses() const override { return true; }
  std::pair<double, double> weights_at(std::int64_t step) const override {
    return {1, step < velocity_only_steps_ ? 0 : 1};
  }
  bool depends_on_step() const override { return velocity_only_steps_ > 0; }

 private:
  std::int64_t velocity_only_steps_;
};

}  // namespace

std::unique_ptr<Weighting> make_weighting_two_stage(WeightingOptions const& options, at::Device) {
  if (options.velocity_only_steps < 0) {
    throw std::invalid_argument(
        fmt::format("two_stage has {} steps of velocity alone, use 0 or more", options.velocity_only_steps));
  }
  return std::make_unique<TwoStageWeighting>(options.velocity_only_steps);
}

}  // namespace duoflow::model
