// pcgrad: w = (1, 1), and where the two weighted gradients of a sample's v_pred point against each other
// (g_v . g_r < 0), each loses its part along the other before they are added (gradient surgery, Yu et al. 2020,
// arXiv:2001.06782):
//   g_v' = g_v - (g_v . g_r) / |g_r|^2 g_r,   g_r' = g_r - (g_r . g_v) / |g_v|^2 g_v,   g = g_v' + g_r'
// Per sample, so no rank needs another's and the result is the same for any split of the batch. The paper does it over
// parameters, of which v_pred is a proxy (the editor's Jacobian lies between). The renderer's own gradients are those
// of its one loss, untouched. For runs whose grad_cosine is negative for long; it costs a few reductions over [B,n,d].

#include "model/loss/weighting_strategies.h"

namespace duoflow::model {

namespace {

class PcgradWeighting : public StepWeighting {
 public:
  bool needs_both_losses() const override { return true; }
  std::pair<double, double> weights_at(std::int64_t) const override { return {1, 1}; }
  CutRule cut_rule() const override { return CutRule::sum_without_conflict; }
};

}  // namespace

std::unique_ptr<Weighting> make_weighting_pcgrad(WeightingOptions const&, at::Device) {
  return std::make_unique<PcgradWeighting>();
}

}  // namespace duoflow::model
