#pragma once
// The end of one half of a block and the beginning of the next in one operator: x + gate y (gated_add.h), which the
// residual stream goes on with, and its LayerNorm (norm.h), which the next branch begins with. On the CPU, and on CUDA where
// the program has kernels (cuda/operators.h), one pass forward and one backward: the sum is read once, and its two gradients
// are added where they meet. Elsewhere, and on CUDA where y and the normalised differ in type, the two operators one after
// the other.

#include <ATen/core/Tensor.h>

namespace duoflow::model {

struct NormOf {
  at::Tensor weight, shift;  // as norm takes them
  double eps = 0;
  at::ScalarType type = at::kFloat;  // of the normalised
};

// x, gate, y as gated_add takes them. The sum is fp32.
struct SumAndNorm {
  at::Tensor sum, normalized;
};
SumAndNorm add_norm(at::Tensor const& x, at::Tensor const& gate, at::Tensor const& y, NormOf const& norm);

}  // namespace duoflow::model
