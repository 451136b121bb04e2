#include "model/flow/path.h"

#include <ATen/ATen.h>

namespace duoflow::model {

PathPoint linear_path(at::Tensor const& x0, at::Tensor const& x1, at::Tensor const& t) {
  at::Tensor const s = t.view({-1, 1, 1});
  // Written as two products, not as x0 + t (x1 - x0): that form misses x1 at t = 1 by a rounding.
  return {(1 - s) * x0 + s * x1, x1 - x0};
}

}  // namespace duoflow::model
