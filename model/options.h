#pragma once
// Sizes and choices of the model. Defaults are duoflow's; `reference_behaviour` options give the LVSM-family code's.

#include <cstdint>
#include <string>

namespace duoflow::model {

enum class ComputeType { fp32, bf16 };
// What moves the latents x0 of a scene towards x1, the same scene under another light.
enum class EditorKind {
  flow,            // velocity along the path from x0 to x1
  noise_to_relit,  // velocity along the path from Gaussian noise to x1; x0 is a condition, its tokens beside x_t's
  one_step,        // plain blocks; their output is x1: taken as one Euler step from t = 0 with v = output - x0
  residual         // the same with v = head(output), the head zero at first
};
// The two that know no time: t is 0, and solving is one Euler step.
inline bool knows_time(EditorKind kind) { return kind == EditorKind::flow || kind == EditorKind::noise_to_relit; }

enum class AttentionPath {
  automatic,
  sdpa,
  matmul
};  // automatic: matmul for bf16 on CPU (measured 2.5x faster), else sdpa

enum class RecomputePart { block, attention, mlp };

struct ModelOptions {
  std::int64_t d = 768, d_head = 64, patch_size = 8;
  std::int64_t encoder_n_layer = 12, decoder_n_layer = 12, editor_n_layer = 12;
  std::int64_t n_latent_vectors = 3072;
  std::int64_t image_size = 256;  // square pictures
  std::int64_t env_height =
      32;  // light maps are brought to env_height x 2 env_height before tokenizing (reference: 256)
  bool use_qk_norm = true, special_init = true, depth_init = true;
  EditorKind editor = EditorKind::flow;
  double editor_init_scale = 0.1;  // one_step, residual: factor on their blocks' initial deviation (flow editors: none)
  double latent_scale = 1;         // factor on what the flow sees (reference's noise_to_relit: 0.136)
  double residual_scale = 1;       // residual: factor on its head's output (reference: 0.05)
  double time_scale = 1000;        // reference: 1
  bool velocity_head =
      true;  // zero-initialised output head on the editor (`editor_velocity_head.{0,1}`); reference: none
  bool light_in_adaln =
      true;  // AdaLN condition = MLP(t) + mean over light tokens of MLP(LayerNorm(token)); reference: time only
  bool normalize_latents = true;  // the flow sees (x - latent_mean) / latent_std; undone before the renderer
  ComputeType compute = ComputeType::fp32;
  AttentionPath attention = AttentionPath::automatic;
  // Activation checkpointing: so many blocks at a time are run again in the backward; 0: none. Of attention and mlp
  // only what goes into them is kept, of each block by itself.
  std::int64_t recompute_every = 0;
  RecomputePart recompute_part = RecomputePart::block;
};

}  // namespace duoflow::model
