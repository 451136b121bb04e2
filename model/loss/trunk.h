#pragma once
// Trunk: the frozen convolutional network whose features a perceptual loss compares.
//
// A plan lists its layers; weights come under torchvision's state-dict keys, `features.N.{weight,bias}`, where N counts
// every convolution, the ReLU behind it and every pool. A tap is the output of a ReLU.

#include <cstdint>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "model/loss/frozen_weights.h"

namespace duoflow::model {

struct TrunkLayer {
  enum class Kind { convolution, max_pool, average_pool };  // a convolution has a bias and a ReLU behind it
  Kind kind = Kind::convolution;
  std::int64_t channels = 0, kernel = 3, stride = 1, padding = 1;
  bool tap = false;
};

struct TrunkPlan {
  std::string name;
  std::vector<TrunkLayer> layers;
};
TrunkPlan vgg16_plan();    // taps relu1_2, 2_2, 3_3, 4_3, 5_3; max-pooling (Simonyan & Zisserman 2015, configuration D)
TrunkPlan alexnet_plan();  // taps relu1 to relu5 (Krizhevsky 2014, as torchvision has it)
TrunkPlan vgg19_plan();    // taps relu1_2, 2_2, 3_2, 4_2, 5_2; average-pooling (reference/method.md 1.3); ends there
TrunkPlan narrowed(TrunkPlan plan, std::int64_t divisor);  // the same with fewer channels, for tests

class Trunk {
 public:
  // Takes the plan's weights; their device and type are what it computes with. std::invalid_argument as FrozenWeights.
  Trunk(TrunkPlan plan, FrozenWeights& weights);

  // x [N,3,H,W], scaled as the network expects it -> the taps, [N,C,h,w] each. Runs outside autocast, in the weights'
  // type: under bf16 a VGG's input of up to +-150 would be quantised to whole grey levels (reference/method.md 1.5
  // #19). std::invalid_argument for pictures with a side below smallest_side().
  std::vector<at::Tensor> features(at::Tensor const& x_N3HW) const;

  std::int64_t smallest_side() const { return smallest_side_; }  // pixels that leave every layer something to work on
  std::vector<std::int64_t> const& tap_channels() const { return tap_channels_; }
  at::TensorOptions options() const { return weights_.front().options(); }

 private:
  at::Tensor convolve(at::Tensor const& x, TrunkLayer const& layer, std::size_t index) const;

  TrunkPlan plan_;
  std::vector<at::Tensor> weights_, biases_;  // one per convolution
  std::vector<std::int64_t> tap_channels_;
  std::int64_t smallest_side_ = 1;
};

// Largest of each window, no padding; the gradient goes to the window's first largest element, row by row, as
// max_pool2d's does. Made of selections, which are deterministic on every device.
at::Tensor max_pool_by_selection(at::Tensor const& x_NCHW, std::int64_t kernel, std::int64_t stride);

}  // namespace duoflow::model
