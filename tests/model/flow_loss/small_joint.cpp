#include "tests/model/flow_loss/small_joint.h"

#include <algorithm>
#include <cmath>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace duoflow::model {

SmallJoint::SmallJoint() : model(test::small_model(test::small_options())) {
  model.set_trainable(Part::reconstructor, false);
  auto const in = test::golden("model_weights", "in.");
  batch = {test::golden("flow_loss", "joint.").at("x0"),
           in.at("x1"),
           in.at("t"),
           in.at("env"),
           in.at("target_rays"),
           in.at("target_image")};
  reconstruction = {in.at("images"), in.at("rays"), in.at("target_rays"), in.at("target_image")};
  clear_gradients();
}

void SmallJoint::clear_gradients() {
  for (auto const& parameter : model.parameters()) {
    at::Tensor tensor = parameter.tensor;
    if (!tensor.requires_grad()) continue;
    if (tensor.grad().defined())
      tensor.mutable_grad().zero_();
    else
      tensor.mutable_grad() = at::zeros_like(tensor);
  }
}

test::Tensors SmallJoint::gradients() const {
  test::Tensors result;
  for (auto const& parameter : model.parameters()) {
    if (parameter.tensor.requires_grad()) result[parameter.name] = parameter.tensor.grad().clone();
  }
  return result;
}

test::Tensors SmallJoint::gradients(Part part) const {
  test::Tensors result;
  for (auto const& parameter : model.parameters()) {
    if (parameter.part == part && parameter.tensor.requires_grad())
      result[parameter.name] = parameter.tensor.grad().clone();
  }
  return result;
}

JointBatch part_of(JointBatch const& batch, std::int64_t begin, std::int64_t end) {
  auto const cut = [&](at::Tensor const& x) { return x.defined() ? x.slice(0, begin, end) : x; };
  return {cut(batch.x0),          cut(batch.x1),          cut(batch.t),
          cut(batch.env),         cut(batch.target_rays), cut(batch.target_image),
          cut(batch.input_image), cut(batch.relit_image), cut(batch.input_rays)};
}

StepResult run_whole_step(SmallJoint& small, JointLossOptions const& losses, WeightingOptions const& options,
                          bool keep_graph, std::int64_t step) {
  auto const weighting = make_weighting(options, at::kCPU);
  JointStep joint(small.model, losses, *weighting);
  StepResult result;
  result.at_cut = joint.run_to_cut(small.batch, step, small.batch.t.size(0), keep_graph,
                                   [&](at::Tensor const& sums) { result.sums = sums.clone(); });
  result.weights = joint.combine(result.sums, step);
  result.cut_sums = at::zeros({3}, at::kDouble);
  joint.run_from_cut(small.batch, result.at_cut, result.weights, result.cut_sums);
  return result;
}

double largest_distance(test::Tensors const& gradients, test::Tensors const& expected) {
  EXPECT_EQ(gradients.size(), expected.size());
  double largest = 0;
  for (auto const& [name, gradient] : gradients) {
    auto const found = expected.find(name);
    if (found == expected.end()) {
      ADD_FAILURE() << "no expected gradient of " << name;
      continue;
    }
    at::Tensor const right = found->second.to(at::kDouble);
    double const size = right.norm().item<double>(),
                 difference = (gradient.to(at::kDouble) - right).norm().item<double>();
    EXPECT_TRUE(std::isfinite(difference)) << name;
    largest = std::max(largest, size > 0 ? difference / size : difference);
  }
  return largest;
}

}  // namespace duoflow::model
