#pragma once
// The global gradient norm, clipping by it, and both without a host synchronisation.
//
// Squares are summed in fp64 over chunks that are cut by the buffer's layout alone, each in a slot of one vector; with
// gradients in slices (`shared_over`) a rank fills its own slots and the vector is SUM-reduced: adding zeros is exact,
// so every rank has the same norm, and with a layout that does not depend on the rank count (reproducible mode) every
// rank count has.

#include <ATen/core/Tensor.h>

#include "dist/communicator.h"
#include "dist/flat_buffer.h"

namespace duoflow::dist {

class GradientNorm {
 public:
  GradientNorm(FlatBuffer const& buffer, Communicator shared_over = {});
  // fp32 scalars on the device: the norm, and what the gradients are to be multiplied by so that it is at most max_norm
  // (torch.nn.utils.clip_grad_norm_'s rule, eps 1e-6), undefined for max_norm <= 0.
  struct Measured {
    at::Tensor norm, factor;
  };
  // Collective over the group.
  Measured measure(at::Tensor const& own_gradients, double max_norm);
  // Multiplies the gradients too, and returns the norm before.
  at::Tensor clip(at::Tensor const& own_gradients, double max_norm);

 private:
  struct Chunk {
    std::int64_t begin = 0, length = 0, slot = 0;  // in own_gradients; in squares_
  };
  Communicator group_;
  std::vector<Chunk> chunks_;  // of what is owned
  at::Tensor squares_, slots_;
};

}  // namespace duoflow::dist
