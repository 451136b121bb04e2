#pragma once
// A small graph with a shared weight, norms between matrices and an unused branch, for the tests of reduction.

#include <map>
#include <memory>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include "dist/flat_buffer.h"

namespace duoflow::dist {

struct SmallModel {
  std::vector<TrainableParameter> parameters;

  explicit SmallModel(at::Device device = at::kCPU) {
    auto const add = [&](std::string const& name, std::vector<std::int64_t> const& shape, int group) {
      std::int64_t const numel = c10::multiply_integers(shape);
      at::Tensor const steps = at::arange(numel, at::kFloat) + static_cast<double>(parameters.size());
      parameters.push_back({name, (steps * 0.37).sin().view(shape).to(device).requires_grad_(), group});
    };
    add("first", {6, 5}, 0);
    add("norm", {6}, 1);
    add("shared", {6, 6}, 0);
    add("unused", {3}, 1);
    add("last", {2, 6}, 0);
  }
  at::Tensor get(std::string const& name) const {
    for (auto const& parameter : parameters) {
      if (parameter.name == name) {
        return parameter.tensor;
      }
    }
    throw std::out_of_range(name);
  }
  // Sum over the samples, so that sums over micro-steps and ranks are the sum over the batch.
  at::Tensor loss(at::Tensor const& x, bool with_unused = false) const {
    at::Tensor h = at::linear(x, get("first")) * get("norm");
    h = at::tanh(at::linear(h, get("shared")));
    h = at::tanh(at::linear(h, get("shared")));
    at::Tensor const total = at::linear(h, get("last")).square().sum();
    return with_unused ? total + get("unused").sum() : total;
  }
};

inline std::set<std::string> used_by_small_model() { return {"first", "norm", "shared", "last"}; }

inline at::Tensor small_batch(std::int64_t samples) {
  return (at::arange(samples * 5, at::kFloat) * 0.71).cos().view({samples, 5});
}

}  // namespace duoflow::dist
