#include "model/matrix.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

namespace duoflow::model {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// master.to(bf16), whose result is there already.
struct Rounded : torch::autograd::Function<Rounded> {
  static at::Tensor forward(AutogradContext*, at::Tensor const&, at::Tensor const& rounded) { return rounded.detach(); }
  static variable_list backward(AutogradContext*, variable_list gradients) { return {gradients[0].to(at::kFloat), {}}; }
};

}  // namespace

at::ScalarType scalar_type(ComputeType compute) { return compute == ComputeType::bf16 ? at::kBFloat16 : at::kFloat; }

at::Tensor in_compute_type(Matrix const& weight, ComputeType compute) {
  if (compute == ComputeType::fp32 || !weight.rounded.defined()) return weight.master.to(scalar_type(compute));
  bool const learns = weight.master.requires_grad() && at::GradMode::is_enabled();
  return learns ? Rounded::apply(weight.master, weight.rounded) : weight.rounded;
}

at::Tensor linear(at::Tensor const& x, Matrix const& weight, ComputeType compute) {
  return at::linear(x.to(scalar_type(compute)), in_compute_type(weight, compute));
}

}  // namespace duoflow::model
