#pragma once
// The perceptual loss of the LVSM family (from Long-LRM and Crowdsampling; reference/method.md 1.3): L1 distances of
// VGG19 features.
//
//   x = 255 image - (123.68, 116.779, 103.939);  e0 = mean |x - x'|;  e1..e5 = mean |f - f'| of the taps;
//   (e0 + e1/2.6 + e2/4.8 + e3/3.7 + e4/5.6 + 10 e5/1.5) / 255
// The network is MatConvNet's ImageNet VGG19 with average-pooling. No package registry has its weights: the user brings
// the file (launch/loss_weights.py converts it).

#include <ATen/core/Tensor.h>

#include "model/loss/trunk.h"

namespace duoflow::model {

class VggPerceptual {
 public:
  // `features.{0..30}.{weight,bias}`; deeper layers and the classifier may be there and are not used.
  // std::invalid_argument as FrozenWeights.
  explicit VggPerceptual(NamedTensors const& weights, TrunkPlan const& plan = vgg19_plan());

  // [N,3,H,W] in [0,1], twice -> [N] in the weights' type. The target has no gradient.
  at::Tensor distance(at::Tensor const& image_N3HW, at::Tensor const& target_N3HW) const;

 private:
  VggPerceptual(TrunkPlan const& plan, FrozenWeights weights);
  at::Tensor scaled(at::Tensor const& image_N3HW) const;

  Trunk trunk_;
  at::Tensor mean_;  // [3,1,1]
};

}  // namespace duoflow::model
