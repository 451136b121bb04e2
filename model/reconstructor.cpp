#include "model/reconstructor.h"

#include <ATen/ATen.h>

#include "model/tokenizers.h"

namespace duoflow::model {

at::Tensor Reconstructor::forward(at::Tensor const& images, at::Tensor const& rays, ModelOptions const& options) const {
  at::Tensor const pictures_BLD = tokenize(at::cat({images.to(at::kFloat) * 2 - 1, rays}, 2), tokenizer_DxF, options.patch_size);
  at::Tensor const latents_BKD = latents_KD.expand({images.size(0), -1, -1});
  return run_blocks(blocks, at::cat({latents_BKD, pictures_BLD}, 1), {}, latents_KD.size(0), options);
}

}  // namespace duoflow::model
