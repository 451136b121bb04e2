#pragma once
// Latent tokens and target rays -> pictures: for each target view cat(pose tokens, latents) -> LayerNorm -> blocks -> the pose
// tokens' outputs -> LayerNorm -> Linear -> sigmoid. Legend: see model/transformer.h.

#include <vector>

#include <ATen/core/Tensor.h>

#include "model/options.h"
#include "model/transformer.h"

namespace duoflow::model {

struct Renderer {
  at::Tensor tokenizer_DxF;
  at::Tensor input_norm_D;
  std::vector<Block> blocks;
  at::Tensor head_norm_D, head_FxD;

  // latents [B,K,D], rays [B,T,6,h,w] -> [B,T,3,h,w] in [0,1], fp32
  at::Tensor forward(at::Tensor const& latents_BKD, at::Tensor const& rays, ModelOptions const& options) const;
};

}  // namespace duoflow::model
