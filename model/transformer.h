#pragma once
// Transformer blocks of the LVSM family (github.com/yiwenchen1999/LVSMExp model/transformer.py and the AdaLN-Zero block of
// model/LVSM_flow_match_editor.py), as weights and functions on them.
//
// Legend of the shape suffixes used in model/: B samples (or samples x target views), V input views, T target views,
// E light maps, N patches, L tokens, K kept tokens, D width, H heads, C head width (d_head), F features of a patch, X a hidden width.
//
// Precision with ComputeType::bf16: matrix products and attention in bf16 (fp32 accumulation), weights rounded from their fp32
// masters once a step or at use (matrix.h), the residual stream, all norms and all sums in fp32. The conditioning path of AdaLN stays in fp32.

#include <cstdint>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "model/matrix.h"
#include "model/options.h"
#include "model/parameters.h"

namespace duoflow::model {

struct Block {
  at::Tensor norm1_D, norm2_D;                      // undefined in an AdaLN block
  Matrix to_qkv_3DxD, fc_DxD;
  at::Tensor q_norm_C, k_norm_C;                    // undefined without QK norm
  Matrix mlp_in_XxD, mlp_out_DxX;
  at::Tensor adaln_6DxD, adaln_bias_6D;             // undefined in a plain block: shift, scale, gate of attention, then of the MLP

  std::vector<at::Tensor*> tensors();  // the defined ones, of matrices the masters
};

// Linear layers N(0, weight_std).
void add_block_slots(Slots& slots, Block& block, std::string const& prefix, ModelOptions const& options, double weight_std, Part part);
// Linear layers U(+-1/sqrt(fan_in)), as in the reference, whose editor is rebuilt after the model's own initialisation;
// adaLN_modulation zero, so every block starts as the identity.
void add_adaln_block_slots(Slots& slots, Block& block, std::string const& prefix, ModelOptions const& options, Part part);

// x_BLD fp32 -> the first `keep` tokens after all blocks, [B,keep,D] fp32. The last block computes nothing for the other tokens
// beyond their keys and values. condition_BD (fp32) for AdaLN blocks, undefined for plain ones.
at::Tensor run_blocks(std::vector<Block> const& blocks, at::Tensor x_BLD, at::Tensor const& condition_BD, std::int64_t keep,
                      ModelOptions const& options);

// fp32; gain_D undefined: none.
at::Tensor layer_norm(at::Tensor const& x, at::Tensor const& gain_D, double eps);
inline constexpr double kLayerNormEps = 1e-5;     // nn.LayerNorm's default, which the reference keeps
inline constexpr double kAdaLayerNormEps = 1e-6;  // the reference's AdaLN block

}  // namespace duoflow::model
