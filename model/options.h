#pragma once
// Sizes and choices of the model. Defaults are duoflow's; `reference_behaviour` options give the LVSM-family code's.

#include <cstdint>
#include <string>

namespace duoflow::model {

enum class ComputeType { fp32, bf16 };
enum class AttentionPath { automatic, sdpa, matmul };  // automatic: matmul for bf16 on CPU (measured 2.5x faster), else sdpa

struct ModelOptions {
  std::int64_t d = 768, d_head = 64, patch_size = 8;
  std::int64_t encoder_n_layer = 12, decoder_n_layer = 12, editor_n_layer = 12;
  std::int64_t n_latent_vectors = 3072;
  std::int64_t image_size = 256;        // square pictures
  std::int64_t env_height = 32;         // light maps are brought to env_height x 2 env_height before tokenizing (reference: 256)
  bool use_qk_norm = true, special_init = true, depth_init = true;
  double time_scale = 1000;             // reference: 1
  bool velocity_head = true;            // zero-initialised output head on the editor (`editor_velocity_head.{0,1}`); reference: none
  bool light_in_adaln = true;           // AdaLN condition = MLP(t) + mean over light tokens of MLP(LayerNorm(token)); reference: time only
  bool normalize_latents = true;        // the flow sees (x - latent_mean) / latent_std; undone before the renderer
  ComputeType compute = ComputeType::fp32;
  AttentionPath attention = AttentionPath::automatic;
  bool checkpoint_blocks = false;       // recompute blocks in the backward (grad_checkpoint_every)
};

}  // namespace duoflow::model
