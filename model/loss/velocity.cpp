#include "model/loss/velocity.h"

#include <ATen/ATen.h>

namespace duoflow::model {

at::Tensor velocity_loss(at::Tensor const& v_pred, at::Tensor const& target) {
  return (v_pred - target).square().mean(at::IntArrayRef{1, 2});
}

at::Tensor velocity_loss_gradient(at::Tensor const& v_pred, at::Tensor const& target, std::int64_t global_batch) {
  double const elements = static_cast<double>(v_pred.size(1) * v_pred.size(2));
  return (v_pred - target) * (2.0 / (elements * static_cast<double>(global_batch)));
}

}  // namespace duoflow::model
