#pragma once
// The MLP of a block, without biases and with the exact GELU (Hendrycks and Gimpel 1606.08415), in one operator. For the
// backward it keeps x and x up^T; the GELU is made again there, in the pass that multiplies with its slope, whose terms it
// shares: a token keeps 5 d numbers instead of 9 d where all of it learns. That pass is a loop of our own on the CPU and a
// kernel on CUDA where the program has them (cuda/operators.h), elsewhere two of ATen's.

#include <ATen/core/Tensor.h>

namespace duoflow::model {

// x [..,D]; up [X,D]; down [D,X]; all fp32 or all bf16 -> gelu(x up^T) down^T, [..,D], of that type.
at::Tensor mlp(at::Tensor const& x, at::Tensor const& up, at::Tensor const& down);
at::Tensor mlp_by_aten(at::Tensor const& x, at::Tensor const& up, at::Tensor const& down);

}  // namespace duoflow::model
