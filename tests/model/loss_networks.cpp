#include "tests/model/loss_networks.h"

#include <cmath>

#include <ATen/ATen.h>
#include <fmt/format.h>

namespace duoflow::model::test {

namespace {

at::Tensor waves(std::vector<std::int64_t> const& shape, double phase, double linear, double square) {
  at::Tensor const i = at::arange(c10::multiply_integers(shape), at::kDouble);
  return (phase + linear * i + square * i * i).cos().view(shape);
}

}  // namespace

NamedTensors formula_weights(TrunkPlan const& plan, bool with_lin) {
  NamedTensors tensors;
  auto const wave = [&](std::vector<std::int64_t> const& shape) {
    return waves(shape, static_cast<double>(tensors.size()), 0.7, 0.0137);
  };
  std::int64_t inputs = 3, number = 0;
  std::vector<std::int64_t> taps;
  for (auto const& layer : plan.layers) {
    bool const convolution = layer.kind == TrunkLayer::Kind::convolution;
    if (convolution) {
      auto const scale = std::sqrt(4.0 / static_cast<double>(inputs * layer.kernel * layer.kernel));
      tensors.emplace_back(fmt::format("features.{}.weight", number),
                           scale * wave({layer.channels, inputs, layer.kernel, layer.kernel}));
      tensors.emplace_back(fmt::format("features.{}.bias", number), 0.1 * wave({layer.channels}));
      inputs = layer.channels;
      if (layer.tap) taps.push_back(inputs);
    }
    number += convolution ? 2 : 1;
  }
  if (with_lin)
    for (std::size_t i = 0; i < taps.size(); ++i)
      tensors.emplace_back(fmt::format("lin{}.weight", i), 0.05 + 0.04 * wave({1, taps[i], 1, 1}));
  return tensors;
}

at::Tensor formula_images(std::vector<std::int64_t> const& shape, double phase) {
  return 0.5 + 0.45 * waves(shape, phase, 0.31, 0.0019);
}

TrunkPlan tiny_plan() {
  using Kind = TrunkLayer::Kind;
  return {"tiny",
          {{Kind::convolution, 4, 3, 1, 1, true},
           {Kind::max_pool, 0, 2, 2, 0, false},
           {Kind::convolution, 6, 3, 1, 1, true}}};
}

LossNetworks tiny_networks(at::ScalarType type) {
  auto const weights = [&](bool with_lin) {
    auto tensors = formula_weights(tiny_plan(), with_lin);
    for (auto& [name, tensor] : tensors) tensor = tensor.to(type);
    return tensors;
  };
  return {std::make_shared<Lpips>(tiny_plan(), weights(true)),
          std::make_shared<VggPerceptual>(weights(false), tiny_plan())};
}

}  // namespace duoflow::model::test
