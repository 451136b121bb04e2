#pragma once
// Posed pictures -> latent tokens: cat(latents, picture tokens) -> blocks -> the latents' outputs, without a final norm.
// Legend: see model/transformer.h.

#include <vector>

#include <ATen/core/Tensor.h>

#include "model/options.h"
#include "model/transformer.h"

namespace duoflow::model {

inline constexpr std::int64_t kRayChannels = 6, kImageChannels = 3 + kRayChannels;

struct Reconstructor {
  at::Tensor latents_KD;      // n_light_field_latent
  at::Tensor tokenizer_DxF;
  std::vector<Block> blocks;

  // images [B,V,3,h,w] in [0,1], rays [B,V,6,h,w] -> [B,K,D] fp32
  at::Tensor forward(at::Tensor const& images, at::Tensor const& rays, ModelOptions const& options) const;
};

}  // namespace duoflow::model
