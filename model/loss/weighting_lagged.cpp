#include <ATen/ATen.h>

#include "model/loss/weighting_strategies.h"

namespace duoflow::model {

namespace {

// The last step's weights of another strategy: known before the forward, so nothing is awaited and no micro-step is run
// twice. Another choice of objective, not an approximation that hides: the weights answer one step late.
class LaggedWeighting : public Weighting {
 public:
  LaggedWeighting(std::unique_ptr<Weighting> inner, double first, at::Device device)
      : inner_(std::move(inner)),
        velocity_(at::full({}, first, at::TensorOptions(at::kFloat).device(device))),
        render_(at::full_like(velocity_, inner_->known_render_weight(0).value_or(first))) {}

  bool needs_statistics() const override { return true; }
  bool needs_both_losses() const override { return inner_->needs_both_losses(); }
  std::optional<LossWeights> standing_weights() const override {
    return LossWeights{velocity_.clone(), render_.clone()};
  }
  std::pair<double, double> weights_at(std::int64_t step) const override { return inner_->weights_at(step); }
  std::optional<double> known_render_weight(std::int64_t step) const override {
    return inner_->known_render_weight(step);
  }
  bool observes(GradientSpace space, std::int64_t step) const override { return inner_->observes(space, step); }
  void observe(GradientSquares const& bare, at::Tensor const& valid) override { inner_->observe(bare, valid); }
  CutRule cut_rule() const override { return inner_->cut_rule(); }
  bool depends_on_step() const override { return inner_->depends_on_step(); }

  LossWeights weights(at::Tensor const& velocity_loss, at::Tensor const& render_loss,
                      at::Tensor const& finite) override {
    at::NoGradGuard const detached;
    LossWeights const standing = *standing_weights();
    LossWeights const next = inner_->weights(velocity_loss, render_loss, finite);  // left as it was where not finite
    velocity_.copy_(next.velocity);
    render_.copy_(next.render);
    return standing;
  }

  std::vector<std::pair<std::string, at::Tensor>> state() const override {
    auto all = inner_->state();
    all.emplace_back("lagged_velocity_weight", velocity_);
    all.emplace_back("lagged_render_weight", render_);
    return all;
  }

 private:
  std::unique_ptr<Weighting> inner_;
  at::Tensor velocity_, render_;  // fp32 scalars; first_weight() before the first step
};

}  // namespace

std::unique_ptr<Weighting> make_weighting_lagged(std::unique_ptr<Weighting> inner, double first, at::Device device) {
  return std::make_unique<LaggedWeighting>(std::move(inner), first, device);
}

}  // namespace duoflow::model
