#pragma once
#include <ATen/core/Tensor.h>

namespace duoflow::model {

struct PathPoint {
  at::Tensor x_t, target;  // [B,n,d]: the point and the velocity to learn there
};
// Linear path: x_t = (1-t) x0 + t x1, target = x1 - x0 (Lipman et al. 2210.02747; seed document). t [B].
PathPoint linear_path(at::Tensor const& x0, at::Tensor const& x1, at::Tensor const& t);

}  // namespace duoflow::model
