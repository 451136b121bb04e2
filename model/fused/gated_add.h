#pragma once
// x + gate y or x + y, of a residual stream in fp32 and a branch in any type, in one operator: on the CPU, and on CUDA where
// the program has kernels (cuda/operators.h), one pass forward and one backward, without a copy of the branch in fp32;
// elsewhere out of ATen's.

#include <ATen/core/Tensor.h>

namespace duoflow::model {

// x fp32 [B,L,D]; gate fp32 [B,1,D] or undefined (1); y [B,L,D], fp32 or bf16 -> fp32 [B,L,D].
at::Tensor gated_add(at::Tensor const& x, at::Tensor const& gate, at::Tensor const& y);
at::Tensor gated_add_by_aten(at::Tensor const& x, at::Tensor const& gate, at::Tensor const& y);

}  // namespace duoflow::model
