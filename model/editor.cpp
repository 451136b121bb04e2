#include "model/editor.h"

#include <cmath>

#include <ATen/ATen.h>

#include "model/tokenizers.h"

namespace duoflow::model {

at::Tensor sinusoidal_embedding(at::Tensor const& x_B, std::int64_t d) {
  auto const half = d / 2;
  double const step = std::log(10000.0) / static_cast<double>(half - 1);
  at::Tensor const x = x_B.to(at::kDouble).unsqueeze(1);  // an fp32 angle of 1000 radians is off by 6e-5
  at::Tensor const angle = x * at::exp(at::arange(half, x.options()) * -step);
  at::Tensor const embedding = at::cat({angle.sin(), angle.cos()}, 1).to(at::kFloat);
  return d % 2 == 0 ? embedding : at::constant_pad_nd(embedding, {0, 1});
}

at::Tensor ConditionMlp::forward(at::Tensor const& x_BD) const {
  return at::linear(at::silu(at::linear(x_BD, in_DxD, in_bias_D)), out_DxD, out_bias_D);
}

at::Tensor Editor::light_tokens(at::Tensor const& env, ModelOptions const& options) const {
  auto const height = options.env_height, width = 2 * options.env_height;
  at::Tensor maps = env.to(at::kFloat);
  if (maps.size(3) != height || maps.size(4) != width) {
    maps = at::upsample_bilinear2d(maps.flatten(0, 1), {height, width}, /*align_corners=*/false)
               .unflatten(0, {env.size(0), env.size(1)});
  }
  return tokenize(maps, tokenizer_DxF, options.patch_size);
}

at::Tensor Editor::forward(at::Tensor const& x_t_BKD, at::Tensor const& t_B, at::Tensor const& light_BLD,
                           at::Tensor const& source_BKD, ModelOptions const& options) const {
  if (!knows_time(options.editor)) {
    at::Tensor const out_BKD = run_blocks(blocks, at::cat({x_t_BKD, light_BLD}, 1), {}, x_t_BKD.size(1), options);
    if (options.editor == EditorKind::one_step) return out_BKD - x_t_BKD;
    at::Tensor const residual = linear(out_BKD, residual_head_DxD, options.compute).to(at::kFloat);
    return options.residual_scale == 1 ? residual : residual * options.residual_scale;
  }
  at::Tensor condition_BD = time_mlp.forward(sinusoidal_embedding(t_B.to(at::kDouble) * options.time_scale, options.d));
  if (options.light_in_adaln)
    condition_BD = condition_BD + light_mlp.forward(layer_norm(light_BLD, {}, kAdaLayerNormEps)).mean(1);
  bool const from_noise = options.editor == EditorKind::noise_to_relit;
  at::Tensor const in_BLD =
      from_noise ? at::cat({x_t_BKD, source_BKD, light_BLD}, 1) : at::cat({x_t_BKD, light_BLD}, 1);
  at::Tensor const tokens = run_blocks(blocks, in_BLD, condition_BD, x_t_BKD.size(1), options);
  if (!options.velocity_head) return tokens;
  return linear(layer_norm(tokens, head_norm_D, kLayerNormEps), head_DxD, options.compute).to(at::kFloat);
}

void add_condition_mlp_slots(Slots& slots, ConditionMlp& mlp, std::string const& prefix, std::int64_t d, Part part) {
  Initial const values = Initial::fan_in(d);
  slots.push_back({prefix + "mlp.0.weight", &mlp.in_DxD, {d, d}, values, part});
  slots.push_back({prefix + "mlp.0.bias", &mlp.in_bias_D, {d}, values, part});
  slots.push_back({prefix + "mlp.2.weight", &mlp.out_DxD, {d, d}, values, part});
  slots.push_back({prefix + "mlp.2.bias", &mlp.out_bias_D, {d}, values, part});
}

}  // namespace duoflow::model
