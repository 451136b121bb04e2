#include "model/renderer.h"

#include <ATen/ATen.h>

#include "model/tokenizers.h"

namespace duoflow::model {

at::Tensor Renderer::forward(at::Tensor const& latents_BKD, at::Tensor const& rays, ModelOptions const& options) const {
  auto const b = rays.size(0), t = rays.size(1), height = rays.size(3), width = rays.size(4), k = latents_BKD.size(1), d = options.d;
  at::Tensor const pose_BLD = tokenize(rays, tokenizer_DxF, options.patch_size).reshape({b * t, -1, d});
  auto const n = pose_BLD.size(1);
  // The norm acts token by token: the latents take it once, before they are repeated for every view.
  at::Tensor const latents = layer_norm(latents_BKD, input_norm_D, kLayerNormEps).unsqueeze(1).expand({b, t, k, d}).reshape({b * t, k, d});
  at::Tensor const tokens = at::cat({layer_norm(pose_BLD, input_norm_D, kLayerNormEps), latents}, 1);
  at::Tensor const image_tokens = run_blocks(blocks, tokens, {}, n, options);
  // In fp32: a bf16 logit moves a pixel by up to half a grey level.
  at::Tensor const patches = at::sigmoid(at::linear(layer_norm(image_tokens, head_norm_D, kLayerNormEps), head_FxD));
  return unpatchify(patches.reshape({b, t * n, -1}), t, height, width, options.patch_size);
}

}  // namespace duoflow::model
