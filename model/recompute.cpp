#include "model/recompute.h"

#include <utility>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <ATen/core/ivalue.h>
#include <ATen/record_function.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/functions/basic_ops.h>
#include <torch/csrc/autograd/variable.h>

namespace duoflow::model {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct FunctionHolder : torch::CustomClassHolder {
  explicit FunctionHolder(TensorFunction f) : function(std::move(f)) {}
  TensorFunction function;
};

// torch::autograd::grad from an edge; undefined of a leaf that nothing was made of.
variable_list gradients_of(torch::autograd::Edge const& output, variable_list const& output_gradient, variable_list const& leaves) {
  torch::autograd::edge_list ends;
  for (at::Tensor const& leaf : leaves) {
    auto end = torch::autograd::impl::try_get_grad_accumulator(leaf);
    if (end == nullptr) end = std::make_shared<torch::autograd::Identity>();
    ends.emplace_back(std::move(end), 0);
  }
  return torch::autograd::Engine::get_default_engine().execute({output}, output_gradient, /*keep_graph=*/false, /*create_graph=*/false,
                                                               /*accumulate_grad=*/false, ends);
}

struct Recompute : torch::autograd::Function<Recompute> {
  static at::Tensor forward(AutogradContext* context, c10::intrusive_ptr<FunctionHolder> const& holder, at::TensorList inputs) {
    context->saved_data["function"] = c10::IValue::make_capsule(holder);
    context->save_for_backward(inputs.vec());
    return holder->function(inputs.vec());
  }

  static variable_list backward(AutogradContext* context, variable_list output_gradient) {
    auto const holder = context->saved_data["function"].toCapsule();
    auto const& function = static_cast<FunctionHolder*>(holder.get())->function;
    variable_list inputs, wanted;
    for (at::Tensor const& saved : context->get_saved_variables()) {
      inputs.push_back(saved.detach().set_requires_grad(saved.requires_grad()));
      if (saved.requires_grad()) wanted.push_back(inputs.back());
    }
    at::AutoGradMode const with_graph(true);
    // The output's edge alone: its numbers are no longer needed.
    torch::autograd::Edge const output = [&] {
      RECORD_USER_SCOPE("blocks again");
      return torch::autograd::impl::gradient_edge(function(inputs));
    }();
    variable_list const found = gradients_of(output, output_gradient, wanted);
    variable_list gradients{at::Tensor()};  // the holder has none
    std::size_t next = 0;
    for (at::Tensor const& input : inputs) gradients.push_back(input.requires_grad() ? found[next++] : at::Tensor());
    return gradients;
  }
};

}  // namespace

at::Tensor recompute_in_backward(TensorFunction function, std::vector<at::Tensor> const& inputs) {
  return Recompute::apply(c10::make_intrusive<FunctionHolder>(std::move(function)), at::TensorList(inputs));
}

}  // namespace duoflow::model
