#pragma once
// Networks for tests of the perceptual losses, with weights that need no file.

#include "model/loss/lpips.h"
#include "model/loss/render.h"
#include "model/loss/vgg_perceptual.h"

namespace duoflow::model::test {

// Weights of every layer of the plan, by a formula that tests/golden/make_image_losses.py repeats: number i of tensor k
// is scale * cos(k + 0.7 i + 0.0137 i^2) with scale sqrt(4 / fan-in) for a convolution's weights, 0.1 for its bias and
// 0.05 + 0.04 cos(...) for a lin weight (`with_lin`). fp64.
NamedTensors formula_weights(TrunkPlan const& plan, bool with_lin);

// Smooth pictures in [0,1], fp64: element i is 0.5 + 0.45 cos(phase + 0.31 i + 0.0019 i^2).
at::Tensor formula_images(std::vector<std::int64_t> const& shape, double phase);

// Two convolutions with taps and a pool between: small enough for pictures of two pixels a side.
TrunkPlan tiny_plan();
LossNetworks tiny_networks(at::ScalarType type = at::kFloat);

}  // namespace duoflow::model::test
