#include "model/loss/trunk.h"

#include <algorithm>
#include <stdexcept>

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <fmt/format.h>

namespace duoflow::model {

namespace {

using Kind = TrunkLayer::Kind;

// One number: a 3x3 convolution of so many channels; the same negative: one that is tapped; 0: a 2x2 pool.
TrunkPlan vgg(std::string name, Kind pool, std::vector<std::int64_t> const& layers) {
  TrunkPlan plan{std::move(name), {}};
  for (auto const channels : layers) {
    if (channels == 0)
      plan.layers.push_back({pool, 0, 2, 2, 0, false});
    else
      plan.layers.push_back({Kind::convolution, std::abs(channels), 3, 1, 1, channels < 0});
  }
  return plan;
}

std::int64_t side_after(std::int64_t side, TrunkLayer const& layer) {
  auto const room = side + 2 * layer.padding - layer.kernel;
  return room < 0 ? 0 : room / layer.stride + 1;
}

std::int64_t smallest_side_of(TrunkPlan const& plan) {
  for (std::int64_t side = 1;; ++side) {
    auto left = side;
    for (auto const& layer : plan.layers) left = left > 0 ? side_after(left, layer) : 0;
    if (left > 0) return side;
  }
}

at::Tensor max_pool(at::Tensor const& x, TrunkLayer const& layer) {
  // max_pool2d's backward on CUDA adds with atomics and refuses to run where deterministic kernels were asked for.
  if (x.is_cuda() && at::globalContext().deterministicAlgorithms())
    return max_pool_by_selection(x, layer.kernel, layer.stride);
  return at::max_pool2d(x, layer.kernel, layer.stride);
}

}  // namespace

TrunkPlan vgg16_plan() {
  return vgg("vgg16", Kind::max_pool, {64, -64, 0, 128, -128, 0, 256, 256, -256, 0, 512, 512, -512, 0, 512, 512, -512});
}

TrunkPlan vgg19_plan() {
  return vgg("vgg19", Kind::average_pool,
             {64, -64, 0, 128, -128, 0, 256, -256, 256, 256, 0, 512, -512, 512, 512, 0, 512, -512});
}

TrunkPlan alexnet_plan() {
  TrunkLayer const pool{Kind::max_pool, 0, 3, 2, 0, false};
  return {"alexnet",
          {{Kind::convolution, 64, 11, 4, 2, true},
           pool,
           {Kind::convolution, 192, 5, 1, 2, true},
           pool,
           {Kind::convolution, 384, 3, 1, 1, true},
           {Kind::convolution, 256, 3, 1, 1, true},
           {Kind::convolution, 256, 3, 1, 1, true}}};
}

TrunkPlan narrowed(TrunkPlan plan, std::int64_t divisor) {
  for (auto& layer : plan.layers) layer.channels /= divisor;
  return plan;
}

Trunk::Trunk(TrunkPlan plan, FrozenWeights& weights) : plan_(std::move(plan)), smallest_side_(smallest_side_of(plan_)) {
  std::int64_t inputs = 3, number = 0;
  for (auto const& layer : plan_.layers) {
    if (layer.kind == Kind::convolution) {
      auto const name = fmt::format("features.{}.", number);
      weights_.push_back(weights.take(name + "weight", {layer.channels, inputs, layer.kernel, layer.kernel}));
      biases_.push_back(weights.take(name + "bias", {layer.channels}));
      inputs = layer.channels;
      if (layer.tap) tap_channels_.push_back(inputs);
    }
    number += layer.kind == Kind::convolution ? 2 : 1;
  }
}

at::Tensor Trunk::convolve(at::Tensor const& x, TrunkLayer const& layer, std::size_t index) const {
  // In place: neither the convolution's backward nor the ReLU's needs what the ReLU overwrites.
  return at::conv2d(x, weights_[index], biases_[index], layer.stride, layer.padding).relu_();
}

std::vector<at::Tensor> Trunk::features(at::Tensor const& x_N3HW) const {
  if (std::min(x_N3HW.size(2), x_N3HW.size(3)) < smallest_side_)
    throw std::invalid_argument(
        fmt::format("pictures of {} x {} pixels are too small for {} (a layer would have nothing to work on), give {} "
                    "or more on each side",
                    x_N3HW.size(2), x_N3HW.size(3), plan_.name, smallest_side_));
  c10::impl::ExcludeDispatchKeyGuard const no_autocast(c10::autocast_dispatch_keyset);
  std::vector<at::Tensor> taps;
  at::Tensor x = x_N3HW.to(weights_.front().scalar_type());
  std::size_t convolution = 0;
  for (auto const& layer : plan_.layers) {
    switch (layer.kind) {
      case Kind::convolution:
        x = convolve(x, layer, convolution++);
        break;
      case Kind::max_pool:
        x = max_pool(x, layer);
        break;
      case Kind::average_pool:
        x = at::avg_pool2d(x, layer.kernel, layer.stride);
        break;
    }
    if (layer.tap) taps.push_back(x);
  }
  return taps;
}

at::Tensor max_pool_by_selection(at::Tensor const& x_NCHW, std::int64_t kernel, std::int64_t stride) {
  TrunkLayer const window{Kind::max_pool, 0, kernel, stride, 0, false};
  auto const height = side_after(x_NCHW.size(2), window), width = side_after(x_NCHW.size(3), window);
  at::Tensor largest;
  for (std::int64_t row = 0; row < kernel; ++row) {
    for (std::int64_t column = 0; column < kernel; ++column) {
      at::Tensor const element = x_NCHW.slice(2, row, row + (height - 1) * stride + 1, stride)
                                     .slice(3, column, column + (width - 1) * stride + 1, stride);
      largest = largest.defined() ? at::where(element > largest, element, largest) : element;
    }
  }
  return largest;
}

}  // namespace duoflow::model
