// The fused operators of the CPU, which write memory in loops of their own, out of ATen's operators: linked before the
// library's (with -z muldefs), so that an OperatorGraph sees them.

#include "model/fused/gated_add.h"
#include "model/fused/heads.h"
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

}  // namespace duoflow::model
