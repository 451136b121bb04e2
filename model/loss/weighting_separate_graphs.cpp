// separate_graphs: w = (1, 1), and the render loss is computed from a detached x_hat (the method's strategy document,
// 3.2): the velocity loss trains the editor alone, the render loss the renderer alone. The two never meet, so only each
// one's learning rate matters, not their balance. For a renderer that is to adapt to edited tokens while the flow stays
// the one to x1; the flow itself learns nothing of what its tokens look like. The gradient of the render loss at v_pred
// is still measured (grad_ratio, grad_cosine), not used. A reconstructor is reached by neither loss.

#include "model/loss/weighting_strategies.h"

namespace duoflow::model {

namespace {

class SeparateGraphsWeighting : public StepWeighting {
 public:
  bool needs_both_losses() const override { return true; }
  std::pair<double, double> weights_at(std::int64_t) const override { return {1, 1}; }
  CutRule cut_rule() const override { return CutRule::velocity_alone; }
};

}  // namespace

std::unique_ptr<Weighting> make_weighting_separate_graphs(WeightingOptions const&, at::Device) {
  return std::make_unique<SeparateGraphsWeighting>();
}

}  // namespace duoflow::model
