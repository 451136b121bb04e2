#include "model/loss/lpips.h"

#include <stdexcept>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <fmt/format.h>

#include "model/metrics.h"

namespace duoflow::model {

namespace {

constexpr double kEpsilon = 1e-10;

TrunkPlan plan_of(LpipsNetwork network) { return network == LpipsNetwork::vgg ? vgg16_plan() : alexnet_plan(); }

}  // namespace

LpipsNetwork lpips_network_from_string(std::string const& name) {
  if (name == "vgg") return LpipsNetwork::vgg;
  if (name == "alex") return LpipsNetwork::alex;
  throw std::invalid_argument(fmt::format("there is no LPIPS network '{}', use vgg or alex", name));
}

at::Tensor unit_features(at::Tensor const& x_NCHW) {
  return x_NCHW / (x_NCHW.square().sum(1, /*keepdim=*/true) + kEpsilon).sqrt();
}

Lpips::Lpips(LpipsNetwork network, NamedTensors const& weights) : Lpips(plan_of(network), weights) {}

Lpips::Lpips(TrunkPlan const& plan, NamedTensors const& weights)
    : Lpips(plan, FrozenWeights(weights, fmt::format("LPIPS with {}", plan.name))) {}

Lpips::Lpips(TrunkPlan const& plan, FrozenWeights weights)
    : trunk_(plan, weights),
      shift_(at::tensor({-.030, -.088, -.188}, at::kDouble).view({3, 1, 1}).to(trunk_.options())),
      scale_(at::tensor({.458, .448, .450}, at::kDouble).view({3, 1, 1}).to(trunk_.options())) {
  for (auto const channels : trunk_.tap_channels()) {
    auto const name = fmt::format("lin{}.weight", lin_1C11_.size());
    lin_1C11_.push_back(weights.take(name, {1, channels, 1, 1}));
    if ((lin_1C11_.back() < 0).any().item<bool>())  // once, when the weights are loaded: the host may wait
      throw std::invalid_argument(fmt::format(
          "'{}' of LPIPS with {} has negative numbers (the distance would not be one); get the weights again", name,
          plan.name));
  }
  weights.finish();
}

std::vector<at::Tensor> Lpips::features(at::Tensor const& image_N3HW) const {
  auto taps = trunk_.features((2 * image_N3HW.to(trunk_.options()) - 1 - shift_) / scale_);
  for (auto& tap : taps) tap = unit_features(tap);
  return taps;
}

std::vector<at::Tensor> Lpips::tap_maps(at::Tensor const& image_N3HW, at::Tensor const& target_N3HW) const {
  c10::impl::ExcludeDispatchKeyGuard const no_autocast(c10::autocast_dispatch_keyset);
  // Apart, not as one batch, whose backward walks the target's half too: of 4 pictures of 64 pixels a side, on one
  // core, 287 ms against 357 (forward and backward).
  auto taps = features(image_N3HW);
  std::vector<at::Tensor> target_taps;
  {
    at::NoGradGuard const no_graph;
    target_taps = features(target_N3HW);
  }
  for (std::size_t i = 0; i < taps.size(); ++i)
    taps[i] = ((taps[i] - target_taps[i]).square() * lin_1C11_[i]).sum(1, /*keepdim=*/true);
  return taps;
}

at::Tensor Lpips::distance(at::Tensor const& image_N3HW, at::Tensor const& target_N3HW) const {
  return distances(image_N3HW, target_N3HW, {}).full;
}

Lpips::Means Lpips::distances(at::Tensor const& image_N3HW, at::Tensor const& target_N3HW,
                              at::Tensor const& mask) const {
  Means means{at::zeros({image_N3HW.size(0)}, trunk_.options()), {}};
  at::Tensor map;
  for (auto const& tap : tap_maps(image_N3HW, target_N3HW)) {
    means.full = means.full + tap.mean(at::IntArrayRef{1, 2, 3});
    if (!mask.defined()) continue;
    auto const whole = at::upsample_bilinear2d(tap, {image_N3HW.size(2), image_N3HW.size(3)}, /*align_corners=*/false);
    map = map.defined() ? map + whole : whole;
  }
  if (mask.defined()) means.masked = masked_mean(map, mask);
  return means;
}

}  // namespace duoflow::model
