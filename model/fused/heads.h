#pragma once
// From a projection to the heads of attention in one operator: split, RMS norm over a head's width (Zhang and Sennrich
// 1910.07467; of queries and keys: Henry et al. 2010.04245), a factor on the queries, heads before tokens, rounding.
// On the CPU, and on CUDA where the program has kernels (cuda/operators.h), one pass forward and one backward, keeping the
// projection and a number a head; elsewhere out of ATen's.

#include <vector>

#include <ATen/core/Tensor.h>

namespace duoflow::model {

struct HeadsOf {
  bool queries = true, keys_and_values = true;  // what the projection holds, in this order
  at::Tensor query_gain, key_gain;              // [d_head] fp32; undefined: no norm
  double query_factor = 1;
};

// projected [B,L,nD], fp32 or bf16 -> n of {queries, keys, values}, each [B,H,L,d_head], of its type: contiguous on
// the CPU, for batched products; on CUDA in memory as [B,L,H,d_head], the layout in which attention then gives its result.
std::vector<at::Tensor> split_heads(at::Tensor const& projected, std::int64_t d_head, HeadsOf const& of);
std::vector<at::Tensor> split_heads_by_aten(at::Tensor const& projected, std::int64_t d_head, HeadsOf const& of);

}  // namespace duoflow::model
