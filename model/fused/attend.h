#pragma once
// Attention as two batched products and a softmax (Vaswani et al. 1706.03762), one operator for autograd: its backward makes
// every gradient in the layout in which it is read next, and the heads' gradient contiguous once instead of once a product.
// On a CPU in bf16 faster than at::scaled_dot_product_attention. Worked through by a few heads at a time (16 MiB of scores, or one
// head); with a graph it keeps the probabilities, [B,H,K,L], without one nothing.

#include <ATen/core/Tensor.h>

namespace duoflow::model {

// q [B,H,K,C], scaled already; k, v [B,H,L,C]; all of one type, contiguous -> softmax(q k^T) v, [B,K,HC], of that type.
// Softmax on scores in that type: CPU has no bf16 product with fp32 result, and the kernel sums in fp32 itself.
at::Tensor attend(at::Tensor const& q, at::Tensor const& k, at::Tensor const& v);

}  // namespace duoflow::model
