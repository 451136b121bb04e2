#pragma once
// The velocity field: cat(x_t, light tokens) -> AdaLN-Zero blocks -> the latents' outputs -> head. Legend: see
// model/transformer.h.
//
// Condition of AdaLN: MLP(sin, cos of time_scale t), with light_in_adaln plus the mean over the light tokens of
// MLP(LayerNorm(token)): the MLP comes before the mean because a light's effect is radiance times direction, which the
// mean token has lost. With velocity_head v = Linear(LayerNorm(tokens)), the Linear zero at first: v = 0, the identity
// edit. Without it (the reference) v is the residual stream itself, which starts as x_t.
//
// The other kinds (EditorKind): noise_to_relit puts the source's tokens between x_t and the light; one_step and
// residual have plain blocks without a condition, and v = output - x_t or v = residual_scale Linear(output).

#include <vector>

#include <ATen/core/Tensor.h>

#include "model/options.h"
#include "model/transformer.h"

namespace duoflow::model {

struct ConditionMlp {  // Linear, SiLU, Linear with biases on the last dimension, in fp32
  at::Tensor in_DxD, in_bias_D, out_DxD, out_bias_D;
  at::Tensor forward(at::Tensor const& x_BD) const;
};

struct Editor {
  at::Tensor tokenizer_DxF;
  std::vector<Block> blocks;
  ConditionMlp time_mlp, light_mlp;  // light_mlp undefined without light_in_adaln
  at::Tensor head_norm_D;            // undefined without velocity_head,
  Matrix head_DxD;                   // as this
  Matrix residual_head_DxD;          // residual only

  // env [B,E,9,h,w] -> [B,L,D] fp32, the maps' tokens after one another. Maps of another size are resized first
  // (bilinear, pixel centres).
  at::Tensor light_tokens(at::Tensor const& env, ModelOptions const& options) const;
  // x_t [B,K,D], t [B] in [0,1] -> velocity [B,K,D] fp32. source_BKD: noise_to_relit only, else not looked at; nor is t
  // by the kinds that know no time.
  at::Tensor forward(at::Tensor const& x_t_BKD, at::Tensor const& t_B, at::Tensor const& light_BLD,
                     at::Tensor const& source_BKD, ModelOptions const& options) const;
};

// [B] -> [B,D]: sines, then cosines of x times 10000^(-i/(D/2-1)); fp32, a zero column when D is odd.
at::Tensor sinusoidal_embedding(at::Tensor const& x_B, std::int64_t d);

void add_condition_mlp_slots(Slots& slots, ConditionMlp& mlp, std::string const& prefix, std::int64_t d, Part part);

}  // namespace duoflow::model
