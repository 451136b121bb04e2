#include "model/recompute.h"

#include <utility>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <ATen/core/ivalue.h>
#include <ATen/record_function.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

namespace duoflow::model {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct FunctionHolder : torch::CustomClassHolder {
  explicit FunctionHolder(TensorFunction f) : function(std::move(f)) {}
  TensorFunction function;
};

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
    variable_list found;
    {
      at::AutoGradMode const with_graph(true);
      at::Tensor const output = [&] {
        RECORD_USER_SCOPE("blocks again");
        return function(inputs);
      }();
      found = torch::autograd::grad(variable_list{output}, wanted, output_gradient, /*retain_graph=*/c10::nullopt,
                                    /*create_graph=*/false, /*allow_unused=*/true);
    }
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
