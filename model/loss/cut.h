#pragma once
// Where the two gradients meet: at v_pred, the only place that sees both losses.

#include <ATen/core/Tensor.h>

#include "model/loss/weighting.h"

namespace duoflow::model {

// What goes into the editor, [B,n,d], of velocity_weight (fp32 scalar tensor) * g_velocity and of g_render, which is
// weighted already: by `rule` their sum, their sum without what points against the other (per sample; Yu et al. 2020,
// weighting_pcgrad.cpp), or the velocity's alone. An undefined gradient counts as zero; nothing to pass on gives an
// undefined tensor. Whatever the rule adds |weighted g_velocity|^2, |g_render|^2 and their dot product to `sums` (fp64
// [3] on the same device, in place).
at::Tensor combine_at_cut(at::Tensor const& g_velocity, at::Tensor const& velocity_weight, at::Tensor const& g_render,
                          at::Tensor const& sums, CutRule rule = CutRule::sum);

}  // namespace duoflow::model
