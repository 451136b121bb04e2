#include "model/loss/vgg_perceptual.h"

#include <array>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

namespace duoflow::model {

namespace {

constexpr std::array kTapWeights{1 / 2.6, 1 / 4.8, 1 / 3.7, 1 / 5.6, 10 / 1.5};  // the reference's

at::Tensor mean_distance(at::Tensor const& x, at::Tensor const& y) { return (x - y).abs().flatten(1).mean(1); }

}  // namespace

VggPerceptual::VggPerceptual(NamedTensors const& weights, TrunkPlan const& plan)
    : VggPerceptual(plan, FrozenWeights(weights, "the VGG19 perceptual loss")) {}

VggPerceptual::VggPerceptual(TrunkPlan const& plan, FrozenWeights weights)
    : trunk_(plan, weights),
      mean_(at::tensor({123.68, 116.779, 103.939}, at::kDouble).view({3, 1, 1}).to(trunk_.options())) {
  weights.finish({"features.32.", "features.34.", "classifier."});
}

at::Tensor VggPerceptual::scaled(at::Tensor const& image_N3HW) const {
  return 255 * image_N3HW.to(trunk_.options()) - mean_;
}

at::Tensor VggPerceptual::distance(at::Tensor const& image_N3HW, at::Tensor const& target_N3HW) const {
  c10::impl::ExcludeDispatchKeyGuard const no_autocast(c10::autocast_dispatch_keyset);
  at::Tensor const image = scaled(image_N3HW);
  auto const taps = trunk_.features(image);
  at::Tensor target;
  std::vector<at::Tensor> target_taps;
  {
    at::NoGradGuard const no_graph;
    target = scaled(target_N3HW);
    target_taps = trunk_.features(target);
  }
  at::Tensor sum = mean_distance(image, target);
  for (std::size_t i = 0; i < taps.size(); ++i) sum = sum + kTapWeights[i] * mean_distance(taps[i], target_taps[i]);
  return sum / 255;
}

}  // namespace duoflow::model
