#include "model/activation_bytes.h"

#include <algorithm>

namespace duoflow::model {
namespace {

constexpr double kFloat = 4, kMlpRatio = 4;

// One block over `tokens`, of which the first `keep` leave it.
struct BlockShape {
  double sequences = 1, tokens = 0, keep = 0;
  bool adaptive = false, trains = true;
};

struct Widths {
  double d = 0, heads = 0, value = 0;  // value: bytes of the compute type
  bool by_matmul = false, fused = false;  // fused: model/fused, which keeps what it was given and recomputes the rest
};

Widths widths_of(ModelOptions const& o, ActivationShape const& shape) {
  bool const bf16 = o.compute == ComputeType::bf16;
  bool const by_matmul = o.attention == AttentionPath::automatic ? bf16 && shape.on_cpu : o.attention == AttentionPath::matmul;
  return {static_cast<double>(o.d), static_cast<double>(o.d / o.d_head), bf16 ? 2.0 : kFloat, by_matmul, shape.fused};
}

// Between the norm and what the attention adds to the residual.
double attention_bytes(ModelOptions const& o, Widths const& w, BlockShape const& b) {
  // Of queries and keys: the projection, or in fp32 the head and, for the gain, its norm.
  double const gain = w.fused ? w.value : o.use_qk_norm ? kFloat + (b.trains ? kFloat : 0) : 0;
  double per_sequence = b.keep * w.d * (gain + w.value) + b.tokens * w.d * (gain + w.value);  // q, k
  per_sequence += b.tokens * w.d * w.value * (w.fused ? 2 : 1);                              // v
  if (w.by_matmul)
    per_sequence += b.keep * b.tokens * w.heads * w.value;  // probabilities
  else
    per_sequence += b.keep * (w.d * w.value + w.heads * kFloat);  // result, log of the sums
  if (b.trains && w.by_matmul) per_sequence += b.keep * w.d * w.value;  // heads side by side
  return b.sequences * per_sequence;
}

// Before the GELU; after it is made again.
double mlp_bytes(Widths const& w, BlockShape const& b) { return b.sequences * b.keep * kMlpRatio * w.d * w.value; }

// Norms, what the linear layers take, and the residual stream.
double stream_bytes(Widths const& w, BlockShape const& b) {
  double const casts = b.trains ? w.value : 0;
  double per_token = kFloat + casts, per_kept = kFloat + casts;
  if (b.adaptive) {
    per_kept += 2 * (w.fused ? w.value : kFloat);  // what the gates multiply
    if (!w.fused) per_token += kFloat, per_kept += kFloat;  // normalised, for the scale's gradient
  }
  return b.sequences * w.d * (b.tokens * per_token + b.keep * per_kept);
}

// Of a block that runs forward and back by itself: the products of the MLP or the scores, with their gradients.
double working_bytes(Widths const& w, BlockShape const& b) {
  double const mlp = b.sequences * b.keep * kMlpRatio * w.d * w.value;
  double const scores = w.by_matmul ? b.sequences * b.keep * b.tokens * w.heads * w.value : 0;
  return std::max(mlp, scores) + 2 * b.sequences * b.keep * w.d * kFloat;
}

struct Kept {
  double saved = 0, again = 0;  // again: of the segment that is run again in the backward
};

Kept blocks_bytes(ModelOptions const& o, Widths const& w, BlockShape block, std::int64_t layers) {
  Kept kept;
  double segment = 0;
  std::int64_t in_segment = 0;
  double const all_tokens = block.keep;
  for (std::int64_t i = 0; i < layers; ++i) {
    BlockShape b = block;
    b.keep = i + 1 == layers ? all_tokens : block.tokens;
    double const inside_attention = attention_bytes(o, w, b), inside_mlp = mlp_bytes(w, b);
    double const whole = inside_attention + inside_mlp + stream_bytes(w, b);
    if (o.recompute_every == 0) {
      kept.saved += whole;
    } else if (o.recompute_part == RecomputePart::block) {
      if (in_segment == 0) kept.saved += b.sequences * b.tokens * w.d * kFloat;
      segment += whole;
      kept.again = std::max(kept.again, segment);
      if (++in_segment == o.recompute_every) segment = 0, in_segment = 0;
    } else {
      double const inside = o.recompute_part == RecomputePart::attention ? inside_attention : inside_mlp;
      kept.saved += whole - inside;
      kept.again = std::max(kept.again, inside);
    }
  }
  return kept;
}

}  // namespace

ActivationBytes activation_bytes(ModelOptions const& o, ActivationShape const& shape) {
  auto const w = widths_of(o, shape);
  auto const number = [](std::int64_t n) { return static_cast<double>(n); };
  double const patches = number(o.image_size / o.patch_size), light = number(o.env_height / o.patch_size);
  double const latents = number(o.n_latent_vectors), samples = number(shape.samples);
  double const chunk = number(shape.view_chunk > 0 ? std::min(shape.view_chunk, shape.views) : shape.views);
  double const source = o.editor == EditorKind::noise_to_relit ? latents : 0;

  BlockShape const editing{samples, latents + source + 2 * light * light, latents, knows_time(o.editor), shape.editor_trains};
  BlockShape const rendering{samples * chunk, patches * patches + latents, patches * patches, false, shape.renderer_trains};
  auto const editor = blocks_bytes(o, w, editing, o.editor_n_layer);
  auto const renderer = blocks_bytes(o, w, rendering, o.decoder_n_layer);

  ActivationBytes result;
  result.editor = editor.saved;
  result.renderer = renderer.saved;
  double const picture = number(3 * o.image_size * o.image_size) * kFloat;
  result.pictures = samples * picture * (number(shape.views) + 4 * chunk) + 6 * samples * latents * w.d * kFloat;
  result.working = std::max(renderer.again + working_bytes(w, rendering), editor.again + working_bytes(w, editing) - renderer.saved);
  return result;
}

double reconstructor_bytes(ModelOptions const& o, ActivationShape const& shape, std::int64_t input_views) {
  auto const w = widths_of(o, shape);
  auto const number = [](std::int64_t n) { return static_cast<double>(n); };
  double const patches = number(o.image_size / o.patch_size), latents = number(o.n_latent_vectors);
  BlockShape const encoding{number(shape.samples), latents + number(input_views) * patches * patches, latents, false, true};
  auto const kept = blocks_bytes(o, w, encoding, o.encoder_n_layer);
  return kept.saved + kept.again + working_bytes(w, encoding);
}

}  // namespace duoflow::model
