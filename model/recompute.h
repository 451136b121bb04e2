#pragma once
#include <functional>
#include <vector>

#include <ATen/core/Tensor.h>

namespace duoflow::model {

using TensorFunction = std::function<at::Tensor(std::vector<at::Tensor> const& inputs)>;

// function(inputs), keeping only the inputs for the backward, which runs `function` again (activation checkpointing).
// `function` must depend on its arguments alone and be deterministic; it may be called on another thread. Gradients of
// parameters pass through `inputs`, so their accumulation (and its hooks) happens once, in the outer graph.
at::Tensor recompute_in_backward(TensorFunction function, std::vector<at::Tensor> const& inputs);

}  // namespace duoflow::model
