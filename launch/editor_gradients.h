#pragma once
// EditorGradients: how long each loss's gradient is over the editor's parameters, from two reductions of one step: that
// of lambda_v L_v alone and that of the whole, whose difference is the render loss's. For a weighting that balances the
// two where v_pred is only a proxy (reference/method.md 1.6). Takes as much memory as this rank's own gradients.

#include <vector>

#include <ATen/core/Tensor.h>

#include "dist/flat_buffer.h"
#include "dist/gradient_norm.h"
#include "model/loss/weighting.h"

namespace duoflow::launch {

class EditorGradients {
 public:
  // `shared_over`: the ranks that share the update (ZeRO-1), else null.
  EditorGradients(dist::FlatBuffer const& buffer, dist::Communicator const& shared_over);
  // own_gradients: the reducer's, of lambda_v L_v alone.
  void keep_velocity(at::Tensor const& own_gradients);
  // own_gradients: of the step's weighted sum, before clipping. Squares of both weighted gradients, fp64 scalars on the
  // device, the same on every rank. Collective over shared_over; consumes what keep_velocity() kept.
  model::GradientSquares squares(at::Tensor const& own_gradients, at::Tensor const& velocity_weight);

 private:
  at::Tensor square();

  dist::GradientNorm norm_;
  at::Tensor kept_;                  // as own_gradients, zero outside the editor
  std::vector<at::Tensor> outside_;  // of kept_: what is no editor's
};

}  // namespace duoflow::launch
