#include <stdexcept>

#include <ATen/core/Tensor.h>

#include "model/fused/cuda/operators.h"

namespace duoflow::model::cuda {
namespace {

[[noreturn]] void refuse() { throw std::logic_error("this program has no CUDA kernels: ask takes() first"); }

}  // namespace

bool has_kernels() { return false; }
bool takes(at::Tensor const&) { return false; }
at::Tensor norm(at::Tensor const&, at::Tensor const&, at::Tensor const&, double, at::ScalarType) { refuse(); }
std::vector<at::Tensor> split_heads(at::Tensor const&, at::Tensor const&, at::Tensor const&, double, double, std::int64_t, std::int64_t) {
  refuse();
}
at::Tensor gated_add(at::Tensor const&, at::Tensor const&, at::Tensor const&) { refuse(); }
SumAndNorm add_norm(at::Tensor const&, at::Tensor const&, at::Tensor const&, NormOf const&) { refuse(); }
at::Tensor gelu(at::Tensor const&) { refuse(); }
void gelu_back(at::Tensor const&, at::Tensor const&, at::Tensor const&) { refuse(); }
at::Tensor mean_square_error(at::Tensor const&, at::Tensor const&) { refuse(); }
at::Tensor pluecker_rays(at::Tensor const&, at::Tensor const&, std::int64_t, std::int64_t) { refuse(); }

}  // namespace duoflow::model::cuda
