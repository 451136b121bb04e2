#pragma once
// Velocity loss: mean square distance of the predicted velocity from the path's, per sample, and its closed-form
// gradient.

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace duoflow::model {

// v_pred, target [B,n,d] -> [B] means over tokens and channels.
at::Tensor velocity_loss(at::Tensor const& v_pred, at::Tensor const& target);

// d/dv of (1/G) sum over the samples of velocity_loss: 2 (v - target) / (n d G), [B,n,d].
at::Tensor velocity_loss_gradient(at::Tensor const& v_pred, at::Tensor const& target, std::int64_t global_batch);

}  // namespace duoflow::model
