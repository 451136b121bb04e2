#pragma once
// Where the two gradients meet: at v_pred, the only place that sees both losses.

#include <ATen/core/Tensor.h>

namespace duoflow::model {

// velocity_weight (fp32 scalar tensor) * g_velocity + g_render, the latter already weighted. An undefined gradient
// counts as zero; both undefined give an undefined tensor. Adds |weighted g_velocity|^2, |g_render|^2 and their dot
// product to `sums` (fp64 [3] on the same device, in place).
at::Tensor combine_at_cut(at::Tensor const& g_velocity, at::Tensor const& velocity_weight, at::Tensor const& g_render,
                          at::Tensor const& sums);

}  // namespace duoflow::model
