#include "tests/model/flow_loss/small_joint.h"

#include <algorithm>
#include <cmath>

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

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

PlainLosses plain_forward(SceneModel const& model, JointBatch const& batch, bool render_sees_v) {
  at::Tensor const t = batch.t.view({-1, 1, 1});
  at::Tensor const x0 = model.to_flow_space(batch.x0), x1 = model.to_flow_space(batch.x1);
  at::Tensor const x_t = (1 - t) * x0 + t * x1;
  at::Tensor const v_pred = model.velocity(x_t, batch.t, model.light_tokens(batch.env));
  at::Tensor const x_hat = x_t + (1 - t) * (render_sees_v ? v_pred : v_pred.detach());
  at::Tensor const image = model.render(model.from_flow_space(x_hat), batch.target_rays);
  return {v_pred, at::mse_loss(v_pred, x1 - x0), at::mse_loss(image, batch.target_image)};
}

test::Tensors plain_gradients(SmallJoint& small, double velocity_factor, double render_factor, bool render_sees_v) {
  small.clear_gradients();
  auto const losses = plain_forward(small.model, small.batch, render_sees_v);
  at::Tensor const total = velocity_factor * losses.velocity + render_factor * losses.render;
  torch::autograd::backward({total}, {at::ones_like(total)});
  return small.gradients();
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
