#pragma once
// ShardedAdamW: fused AdamW over the flat buffers, one call per run of equal hyper-parameters.
//
// Skips on the device: where `found_inf` is 1 parameters, moments and the update count keep their bits
// (at::_fused_adamw_ neither advances nor reverts the count, so the count is advanced by 1 - found_inf here).
// The owned slice is the whole buffer (every rank updates everything).

#include <vector>

#include <ATen/core/Tensor.h>

#include "dist/flat_buffer.h"

namespace duoflow::dist {

struct AdamWOptions {
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8;
  std::vector<double> weight_decay;  // by group
};

class ShardedAdamW {
 public:
  ShardedAdamW(FlatBuffer& buffer, AdamWOptions const& options);
  // learning_rate, found_inf: fp32 scalars on the buffer's device. No host synchronisation.
  void step(at::Tensor const& learning_rate, at::Tensor const& found_inf);
  at::Tensor exp_avg() const { return exp_avg_; }
  at::Tensor exp_avg_sq() const { return exp_avg_sq_; }
  at::Tensor update_count() const { return update_count_; }  // fp32 scalar: updates not skipped

 private:
  FlatBuffer& buffer_;
  AdamWOptions options_;
  at::Tensor exp_avg_, exp_avg_sq_, update_count_;
};

// Scales gradients so that their global norm is at most max_norm (torch.nn.utils.clip_grad_norm_'s rule, eps 1e-6);
// max_norm <= 0: only measures. Returns the norm before clipping (fp32 scalar on device, accumulated in fp64).
at::Tensor clip_gradient_norm(FlatBuffer& buffer, double max_norm);

}  // namespace duoflow::dist
