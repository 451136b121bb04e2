#pragma once
// LPIPS v0.1 (Zhang et al. 2018): the distance of two pictures in the features of a pretrained network.
//
//   x = (2 image - 1 - shift) / scale;  f = the trunk's taps, each divided by its length over the channels;
//   LPIPS = sum over taps of mean over pixels of sum over channels of lin_c (f_c(image) - f_c(target))^2
// shift (-.030,-.088,-.188), scale (.458,.448,.450), per channel; lin: the learned non-negative weights.

#include <string>

#include <ATen/core/Tensor.h>

#include "model/loss/trunk.h"

namespace duoflow::model {

enum class LpipsNetwork { vgg, alex };
LpipsNetwork lpips_network_from_string(std::string const& name);  // "vgg", "alex"; std::invalid_argument

class Lpips {
 public:
  // Tensors: the trunk's (trunk.h) and `lin{0..4}.weight` [1,C,1,1]. std::invalid_argument as FrozenWeights, and for a
  // negative lin weight (the distance would not be one).
  Lpips(LpipsNetwork network, NamedTensors const& weights);
  Lpips(TrunkPlan const& plan, NamedTensors const& weights);  // another size, for tests

  // [N,3,H,W] in [0,1], twice -> [N] in the weights' type. The target has no gradient.
  at::Tensor distance(at::Tensor const& image_N3HW, at::Tensor const& target_N3HW) const;
  // Both means from one run of the network. `masked`: where mask [N,H,W] (bool) is set, of the taps' maps brought to
  // HxW bilinearly and summed (the lpips package's spatial=True); NaN where the mask is empty, undefined without one.
  struct Means {
    at::Tensor full, masked;  // [N]
  };
  Means distances(at::Tensor const& image_N3HW, at::Tensor const& target_N3HW, at::Tensor const& mask) const;
  std::int64_t smallest_side() const { return trunk_.smallest_side(); }

 private:
  Lpips(TrunkPlan const& plan, FrozenWeights weights);
  std::vector<at::Tensor> features(at::Tensor const& image_N3HW) const;
  std::vector<at::Tensor> tap_maps(at::Tensor const& image_N3HW, at::Tensor const& target_N3HW) const;  // [N,1,h,w]

  Trunk trunk_;
  std::vector<at::Tensor> lin_1C11_;
  at::Tensor shift_, scale_;  // [3,1,1]
};

// x / sqrt(sum over channels of x^2 + 1e-10), [N,C,h,w]. The lpips package divides by sqrt(sum) + 1e-10, whose gradient
// is not a number where all channels are zero; this one's is at most 1e5 there. The two differ by a part of 5e-11 / sum
// in each feature, which is below 1e-4 wherever the length is above 7e-4.
at::Tensor unit_features(at::Tensor const& x_NCHW);

}  // namespace duoflow::model
