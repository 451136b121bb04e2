#pragma once
// A weight of a matrix product: an fp32 master and, while somebody keeps it up to date, its rounding to bf16. Autograd sees
// the master alone.

#include <ATen/core/Tensor.h>

#include "model/options.h"

namespace duoflow::model {

struct Matrix {
  at::Tensor master;   // [out,in] fp32
  at::Tensor rounded;  // its values in bf16; undefined: every use rounds for itself

  bool defined() const { return master.defined(); }
};

at::ScalarType scalar_type(ComputeType compute);

// The weight in the compute type; its gradient arrives at the master in fp32.
at::Tensor in_compute_type(Matrix const& weight, ComputeType compute);
// x W^T in the compute type; the result has that type.
at::Tensor linear(at::Tensor const& x, Matrix const& weight, ComputeType compute);

}  // namespace duoflow::model
