#pragma once
// The fused operators on CUDA tensors, with gradients (but of gelu): the kernels of launch.h on the current stream, workspaces from
// ATen's allocator, no wait, so that a CUDA graph can hold them. A program that was built without the kernels takes nothing,
// and the operators use ATen's.

#include <vector>

#include <ATen/core/Tensor.h>

#include "model/fused/add_norm.h"

namespace duoflow::model::cuda {

// Whether this program has kernels, for whatever GPU: it was built with them and the environment has not DUOFLOW_CUDA_KERNELS=0.
bool has_kernels();

// Whether the kernels of this program take such a tensor: on a CUDA device, fp32 or bf16.
bool takes(at::Tensor const& tensor);

// As their namesakes in model/fused, of which x, or the projection, is taken.
at::Tensor norm(at::Tensor const& x, at::Tensor const& weight, at::Tensor const& shift, double eps, at::ScalarType type);
// gains of the first two parts, undefined for no norm; factor on the first part.
std::vector<at::Tensor> split_heads(at::Tensor const& projected, at::Tensor const& first_gain, at::Tensor const& second_gain, double factor,
                                    double eps, std::int64_t parts, std::int64_t d_head);
at::Tensor gated_add(at::Tensor const& x, at::Tensor const& gate, at::Tensor const& y);  // gate: undefined for 1
SumAndNorm add_norm(at::Tensor const& x, at::Tensor const& gate, at::Tensor const& y, NormOf const& norm);  // x fp32, y in norm.type
at::Tensor gelu(at::Tensor const& x);                       // for mlp, which has the gradient
void gelu_back(at::Tensor const& x, at::Tensor const& g, at::Tensor const& y);  // g *= gelu'(x); y, may be undefined, = gelu(x); all contiguous
// As in model/loss/pixel_terms.h (fp32, both alike; no gradient of the target) and model/rays.h.
at::Tensor mean_square_error(at::Tensor const& image, at::Tensor const& target);
at::Tensor pluecker_rays(at::Tensor const& c2w, at::Tensor const& fxfycxcy, std::int64_t height, std::int64_t width);

}  // namespace duoflow::model::cuda
