#pragma once
// LayerNorm over the last dimension, an affine map and a rounding in one operator (Ba et al. 1607.06450; the map of
// AdaLN: Peebles and Xie 2212.09748):
//   y = (x - mean(x)) / sqrt(var(x) + eps) * weight + shift
// On the CPU, and on CUDA where the program has kernels (cuda/operators.h), one pass forward and one backward, keeping x and
// two numbers a row; elsewhere the same out of ATen's.

#include <ATen/core/Tensor.h>

namespace duoflow::model {

// x fp32 [B,L,D]. weight: undefined (1), [D], or [B,1,D]; shift: undefined (0) or [B,1,D], with a weight of that shape.
// y [B,L,D] in `type`, fp32 or bf16.
at::Tensor norm(at::Tensor const& x, at::Tensor const& weight, at::Tensor const& shift, double eps, at::ScalarType type);
// What it is, out of ATen's operators.
at::Tensor norm_by_aten(at::Tensor const& x, at::Tensor const& weight, at::Tensor const& shift, double eps, at::ScalarType type);

}  // namespace duoflow::model
