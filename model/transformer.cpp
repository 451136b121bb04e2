#include "model/transformer.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "model/fused/add_norm.h"
#include "model/fused/attend.h"
#include "model/fused/gated_add.h"
#include "model/fused/heads.h"
#include "model/fused/mlp.h"
#include "model/fused/norm.h"
#include "model/recompute.h"

namespace duoflow::model {
namespace {

constexpr std::int64_t kMlpRatio = 4;

bool use_matmul(at::Device device, ModelOptions const& options) {
  if (options.attention != AttentionPath::automatic) return options.attention == AttentionPath::matmul;
  return device.is_cpu() && options.compute == ComputeType::bf16;
}

// Without an operator that autograd would walk back through by a tensor of zeros where all are kept.
at::Tensor first_tokens(at::Tensor const& x_BLD, std::int64_t keep) { return keep == x_BLD.size(1) ? x_BLD : x_BLD.narrow(1, 0, keep); }

at::Tensor attention_of(Block const& block, at::Tensor const& x_BLD, std::int64_t keep, ModelOptions const& options) {
  auto const d = x_BLD.size(2);
  bool const by_matmul = use_matmul(x_BLD.device(), options);
  double const scale = by_matmul ? 1 / std::sqrt(static_cast<double>(options.d_head)) : 1;
  auto const split = [&](at::Tensor const& projected, bool queries, bool keys_and_values) {
    return split_heads(projected, options.d_head, {queries, keys_and_values, block.q_norm_C, block.k_norm_C, scale});
  };
  std::vector<at::Tensor> heads;
  if (keep == x_BLD.size(1)) {
    heads = split(linear(x_BLD, block.to_qkv_3DxD, options.compute), true, true);
  } else {
    at::Tensor const weight = in_compute_type(block.to_qkv_3DxD, options.compute), x = x_BLD.to(weight.scalar_type());
    heads = split(at::linear(first_tokens(x, keep), weight.narrow(0, 0, d)), true, false);
    auto const rest = split(at::linear(x, weight.narrow(0, d, 2 * d)), false, true);
    heads.insert(heads.end(), rest.begin(), rest.end());
  }
  at::Tensor const &q = heads[0], &k = heads[1], &v = heads[2];
  at::Tensor const out_BKD = by_matmul ? attend(q, k, v) : at::scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2);
  return linear(out_BKD, block.fc_DxD, options.compute);
}

bool recomputes(ModelOptions const& options, RecomputePart part) {
  return options.recompute_every > 0 && options.recompute_part == part && at::GradMode::is_enabled();
}

// Only x and the weights are kept for the backward.
at::Tensor attention(Block const& block, at::Tensor const& x_BLD, std::int64_t keep, ModelOptions const& options) {
  if (!recomputes(options, RecomputePart::attention)) return attention_of(block, x_BLD, keep, options);
  std::vector<at::Tensor> inputs{x_BLD, block.to_qkv_3DxD.master, block.fc_DxD.master};
  if (block.q_norm_C.defined()) inputs.insert(inputs.end(), {block.q_norm_C, block.k_norm_C});
  return recompute_in_backward(
      [keep, options, qkv = block.to_qkv_3DxD.rounded, fc = block.fc_DxD.rounded](std::vector<at::Tensor> const& in) {
        Block local;
        local.to_qkv_3DxD = {in[1], qkv}, local.fc_DxD = {in[2], fc};
        if (in.size() > 3) local.q_norm_C = in[3], local.k_norm_C = in[4];
        return attention_of(local, in[0], keep, options);
      },
      inputs);
}

at::Tensor mlp_of(Block const& block, at::Tensor const& x_BLD, ModelOptions const& options) {
  at::Tensor const up = in_compute_type(block.mlp_in_XxD, options.compute), down = in_compute_type(block.mlp_out_DxX, options.compute);
  return mlp(x_BLD.to(up.scalar_type()), up, down);
}

at::Tensor mlp(Block const& block, at::Tensor const& x_BLD, ModelOptions const& options) {
  if (!recomputes(options, RecomputePart::mlp)) return mlp_of(block, x_BLD, options);
  return recompute_in_backward(
      [options, up = block.mlp_in_XxD.rounded, down = block.mlp_out_DxX.rounded](std::vector<at::Tensor> const& in) {
        Block local;
        local.mlp_in_XxD = {in[1], up}, local.mlp_out_DxX = {in[2], down};
        return mlp_of(local, in[0], options);
      },
      {x_BLD, block.mlp_in_XxD.master, block.mlp_out_DxX.master});
}

// What the norms of a block multiply and add, and what its branches are multiplied with.
struct Modulation {
  NormOf attention, mlp;
  at::Tensor attention_gate_B1D, mlp_gate_B1D;  // undefined in a plain block
};

Modulation modulation_of(Block const& block, at::Tensor const& condition_BD, ModelOptions const& options) {
  auto const type = scalar_type(options.compute);
  if (!condition_BD.defined()) return {{block.norm1_D, {}, kLayerNormEps, type}, {block.norm2_D, {}, kLayerNormEps, type}, {}, {}};
  auto const m = at::linear(at::silu(condition_BD), block.adaln_6DxD, block.adaln_bias_6D).unsqueeze(1).chunk(6, 2);
  return {{m[1] + 1, m[0], kAdaLayerNormEps, type}, {m[4] + 1, m[3], kAdaLayerNormEps, type}, m[2], m[5]};
}

using Segment = std::vector<Block>;

// x = x + gate attention(norm(x)); x = x + gate mlp(norm(x)); each sum with the norm that follows it.
at::Tensor forward(Segment const& segment, at::Tensor x_BLD, at::Tensor const& condition_BD, std::int64_t keep,
                   ModelOptions const& options) {
  Modulation now = modulation_of(segment.front(), condition_BD, options);
  at::Tensor normalized = norm(x_BLD, now.attention.weight, now.attention.shift, now.attention.eps, now.attention.type);
  for (std::size_t i = 0; i < segment.size(); ++i) {
    bool const last = i + 1 == segment.size();
    std::int64_t const wanted = last ? keep : x_BLD.size(1);
    auto const middle = add_norm(first_tokens(x_BLD, wanted), now.attention_gate_B1D,
                                 attention(segment[i], normalized, wanted, options), now.mlp);
    at::Tensor const branch = mlp(segment[i], middle.normalized, options);
    if (last) return gated_add(middle.sum, now.mlp_gate_B1D, branch);
    Modulation next = modulation_of(segment[i + 1], condition_BD, options);
    auto const end = add_norm(middle.sum, now.mlp_gate_B1D, branch, next.attention);
    x_BLD = end.sum;
    normalized = end.normalized;
    now = std::move(next);
  }
  return x_BLD;
}

at::Tensor recomputed(Segment segment, at::Tensor const& x_BLD, at::Tensor const& condition_BD, std::int64_t keep,
                      ModelOptions const& options) {
  std::vector<at::Tensor> inputs{x_BLD};
  if (condition_BD.defined()) inputs.push_back(condition_BD);
  std::size_t const first_weight = inputs.size();
  for (Block& block : segment)
    for (at::Tensor const* tensor : block.tensors()) inputs.push_back(*tensor);
  return recompute_in_backward(
      [segment, keep, options, first_weight](std::vector<at::Tensor> const& in) {
        Segment local = segment;
        std::size_t next = first_weight;
        for (Block& block : local)
          for (at::Tensor* tensor : block.tensors()) *tensor = in[next++];
        return forward(local, in[0], first_weight == 1 ? at::Tensor() : in[1], keep, options);
      },
      inputs);
}

void add_attention_slots(Slots& slots, Block& block, std::string const& prefix, ModelOptions const& options, Initial weights, Part part) {
  auto const d = options.d;
  slots.push_back(matrix_slot(prefix + "attn.to_qkv.weight", block.to_qkv_3DxD, {3 * d, d}, weights, part));
  slots.push_back(matrix_slot(prefix + "attn.fc.weight", block.fc_DxD, {d, d}, weights, part));
  if (!options.use_qk_norm) return;
  slots.push_back({prefix + "attn.q_norm.weight", &block.q_norm_C, {options.d_head}, Initial::one(), part});
  slots.push_back({prefix + "attn.k_norm.weight", &block.k_norm_C, {options.d_head}, Initial::one(), part});
}

}  // namespace

std::vector<at::Tensor*> Block::tensors() {
  std::vector<at::Tensor*> defined;
  for (at::Tensor* tensor : {&norm1_D, &norm2_D, &to_qkv_3DxD.master, &fc_DxD.master, &q_norm_C, &k_norm_C, &mlp_in_XxD.master,
                             &mlp_out_DxX.master, &adaln_6DxD, &adaln_bias_6D}) {
    if (tensor->defined()) defined.push_back(tensor);
  }
  return defined;
}

void add_block_slots(Slots& slots, Block& block, std::string const& prefix, ModelOptions const& options, double weight_std, Part part) {
  auto const d = options.d;
  Initial const weights = Initial::normal(weight_std);
  slots.push_back({prefix + "norm1.weight", &block.norm1_D, {d}, Initial::one(), part});
  add_attention_slots(slots, block, prefix, options, weights, part);
  slots.push_back({prefix + "norm2.weight", &block.norm2_D, {d}, Initial::one(), part});
  slots.push_back(matrix_slot(prefix + "mlp.mlp.0.weight", block.mlp_in_XxD, {kMlpRatio * d, d}, weights, part));
  slots.push_back(matrix_slot(prefix + "mlp.mlp.2.weight", block.mlp_out_DxX, {d, kMlpRatio * d}, weights, part));
}

void add_adaln_block_slots(Slots& slots, Block& block, std::string const& prefix, ModelOptions const& options, Part part) {
  auto const d = options.d;
  add_attention_slots(slots, block, prefix, options, Initial::fan_in(d), part);
  slots.push_back(matrix_slot(prefix + "mlp.mlp.0.weight", block.mlp_in_XxD, {kMlpRatio * d, d}, Initial::fan_in(d), part));
  slots.push_back(matrix_slot(prefix + "mlp.mlp.2.weight", block.mlp_out_DxX, {d, kMlpRatio * d}, Initial::fan_in(kMlpRatio * d), part));
  slots.push_back({prefix + "adaLN_modulation.1.weight", &block.adaln_6DxD, {6 * d, d}, Initial::zero(), part});
  slots.push_back({prefix + "adaLN_modulation.1.bias", &block.adaln_bias_6D, {6 * d}, Initial::zero(), part});
}

at::Tensor run_blocks(std::vector<Block> const& blocks, at::Tensor x_BLD, at::Tensor const& condition_BD, std::int64_t keep,
                      ModelOptions const& options) {
  if (blocks.empty()) return x_BLD.narrow(1, 0, keep);
  if (!recomputes(options, RecomputePart::block)) return forward(blocks, x_BLD, condition_BD, keep, options);
  auto const every = static_cast<std::size_t>(options.recompute_every);
  for (std::size_t first = 0; first < blocks.size(); first += every) {
    std::size_t const end = std::min(first + every, blocks.size());
    auto const at = [&blocks](std::size_t i) { return blocks.begin() + static_cast<std::ptrdiff_t>(i); };
    x_BLD = recomputed(Segment(at(first), at(end)), x_BLD, condition_BD, end == blocks.size() ? keep : x_BLD.size(1), options);
  }
  return x_BLD;
}

at::Tensor layer_norm(at::Tensor const& x, at::Tensor const& gain_D, double eps) {
  return at::layer_norm(x, {x.size(-1)}, gain_D, {}, eps);
}

}  // namespace duoflow::model
