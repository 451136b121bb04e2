// The fused operators of the CPU, which write memory in loops of their own, out of ATen's operators: linked before the
// library's (with -z muldefs), so that an OperatorGraph sees them.

#include <ATen/ATen.h>

#include "dist/sum_of_squares.h"
#include "model/fused/add_norm.h"
#include "model/fused/gated_add.h"
#include "model/fused/heads.h"
#include "model/fused/mlp.h"
#include "model/fused/norm.h"

namespace duoflow::model {

at::Tensor norm(at::Tensor const& x, at::Tensor const& weight, at::Tensor const& shift, double eps,
                at::ScalarType type) {
  return norm_by_aten(x, weight, shift, eps, type);
}

std::vector<at::Tensor> split_heads(at::Tensor const& projected, std::int64_t d_head, HeadsOf const& of) {
  return split_heads_by_aten(projected, d_head, of);
}

at::Tensor gated_add(at::Tensor const& x, at::Tensor const& gate, at::Tensor const& y) {
  return gated_add_by_aten(x, gate, y);
}

at::Tensor mlp(at::Tensor const& x, at::Tensor const& up, at::Tensor const& down) { return mlp_by_aten(x, up, down); }

SumAndNorm add_norm(at::Tensor const& x, at::Tensor const& gate, at::Tensor const& y, NormOf const& of) {
  at::Tensor const sum = gated_add_by_aten(x, gate, y);
  return {sum, norm_by_aten(sum, of.weight, of.shift, of.eps, of.type)};
}

}  // namespace duoflow::model

namespace duoflow::dist {

at::Tensor sum_of_squares(at::Tensor const& numbers) {
  return at::linalg_vector_norm(numbers, 2, std::nullopt, false, at::kDouble).square();
}

}  // namespace duoflow::dist
