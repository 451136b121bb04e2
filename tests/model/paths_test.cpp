// The ways one result can be reached: types, attention paths, recomputation, kept tokens; and the fixed points of a fresh model.

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "model/editor.h"
#include "model/transformer.h"
#include "tests/model/small_model.h"

namespace duoflow::model::test {
namespace {

struct Result {
  Tensors out, gradient;
};

Result run(ModelOptions const& options) {
  SceneModel const model = small_model(options);
  Tensors out = joint_chain(model, golden("model_weights", "in."));
  Tensors gradient = gradients(model, out.at("loss"));
  return {std::move(out), std::move(gradient)};
}

void expect_close(Result const& a, Result const& b, double activations, double gradient) {
  for (auto const& [name, value] : b.out) EXPECT_LE(relative_error(a.out.at(name).detach(), value.detach()), activations) << name;
  for (auto const& [name, value] : b.gradient) EXPECT_LE(relative_error(a.gradient.at(name), value), gradient) << name;
}

ModelOptions with(ComputeType compute, AttentionPath attention, bool checkpoint = false) {
  ModelOptions options = small_options();
  options.compute = compute;
  options.attention = attention;
  options.recompute_every = checkpoint ? 1 : 0;
  return options;
}

TEST(AttentionPathTest, MatmulEqualsSdpaInFp32) {
  expect_close(run(with(ComputeType::fp32, AttentionPath::matmul)), run(with(ComputeType::fp32, AttentionPath::sdpa)), 2e-6, 2e-5);
}

// bf16 keeps 8 bits: a rounding is 2^-9 = 0.2% of a value; found 0.6% and, for gradients, 1.6%.
TEST(ComputeTypeTest, Bf16StaysNearFp32OnBothAttentionPaths) {
  Result const exact = run(with(ComputeType::fp32, AttentionPath::sdpa));
  expect_close(run(with(ComputeType::bf16, AttentionPath::matmul)), exact, 0.01, 0.03);
  expect_close(run(with(ComputeType::bf16, AttentionPath::sdpa)), exact, 0.01, 0.03);
}

TEST(ComputeTypeTest, OutputsAndGradientsAreFp32UnderBf16) {
  Result const result = run(with(ComputeType::bf16, AttentionPath::automatic));
  for (auto const& [name, value] : result.out) EXPECT_EQ(value.scalar_type(), at::kFloat) << name;
  for (auto const& [name, value] : result.gradient) EXPECT_EQ(value.scalar_type(), at::kFloat) << name;
}

Result run(SceneModel const& model) {
  Tensors out = joint_chain(model, golden("model_weights", "in."));
  Tensors gradient = gradients(model, out.at("loss"));
  return {std::move(out), std::move(gradient)};
}

TEST(RoundedWeightsTest, ChangeNoBit) {
  for (auto const part : {RecomputePart::block, RecomputePart::attention, RecomputePart::mlp})
    for (std::int64_t const every : {0, 1}) {
      ModelOptions options = with(ComputeType::bf16, AttentionPath::matmul);
      options.recompute_every = every;
      options.recompute_part = part;
      SceneModel model = small_model(options);
      Result const plain = run(model);
      model.round_weights();
      expect_close(run(model), plain, 0, 0);
    }
}

TEST(RoundedWeightsTest, AreThoseOfTheWeightsWhenTheyWereMadeUntilForgotten) {
  SceneModel model = small_model(with(ComputeType::bf16, AttentionPath::matmul));
  auto const render = [&] { return run(model).out.at("render").detach(); };
  at::Tensor const before = render();
  model.round_weights();
  {
    at::NoGradGuard const no_grad;
    for (auto const& p : model.parameters())
      if (p.name == "transformer_decoder.0.attn.fc.weight") p.tensor.mul_(2);
  }
  EXPECT_TRUE(at::equal(render(), before));
  model.forget_rounded_weights();
  at::Tensor const after = render();
  EXPECT_FALSE(at::equal(after, before));
  model.round_weights();
  EXPECT_TRUE(at::equal(render(), after));
}

// Of a frozen part roundings stay from step to step: only a load changes it.
TEST(RoundedWeightsTest, OfAFrozenPartFollowALoad) {
  SceneModel model = small_model(with(ComputeType::bf16, AttentionPath::matmul));
  model.set_trainable(Part::renderer, false);
  model.round_weights();
  std::vector<std::pair<std::string, at::Tensor>> weights;
  for (auto const& p : model.parameters())
    if (p.part == Part::renderer) weights.emplace_back(p.name, p.tensor.detach() * 2);
  model.load(weights);
  auto const render = [&] { return joint_chain(model, golden("model_weights", "in.")).at("render").detach(); };
  model.forget_rounded_weights();
  at::Tensor const exact = render();
  model.round_weights();
  EXPECT_TRUE(at::equal(render(), exact));
}

TEST(RoundedWeightsTest, OfPartsThatAreNotGivenAreMadeAtEveryUse) {
  SceneModel model = small_model(with(ComputeType::bf16, AttentionPath::matmul));
  auto const render = [&] { return run(model).out.at("render").detach(); };
  auto const scale = [&](std::string const& name) {
    at::NoGradGuard const no_grad;
    for (auto const& p : model.parameters())
      if (p.name == name) p.tensor.mul_(2);
  };
  model.round_weights();
  model.round_weights({}, {Part::reconstructor, Part::editor});
  at::Tensor const before = render();
  scale("transformer_decoder.0.attn.fc.weight");
  at::Tensor const after = render();
  EXPECT_FALSE(at::equal(after, before));
  scale("transformer_editor.0.attn.fc.weight");
  EXPECT_TRUE(at::equal(render(), after)) << "the editor's stand";
}

TEST(RecomputeTest, GivesTheSameBitsAsPlainBlocks) {
  for (auto const compute : {ComputeType::fp32, ComputeType::bf16}) {
    expect_close(run(with(compute, AttentionPath::matmul, true)), run(with(compute, AttentionPath::matmul)), 0, 0);
  }
}

TEST(RecomputeTest, SegmentsAndPartsOfBlocksGiveTheSameBitsToo) {
  for (auto const compute : {ComputeType::fp32, ComputeType::bf16}) {
    auto const plain = run(with(compute, AttentionPath::matmul));
    for (std::int64_t const every : {2, 3, 100}) {
      ModelOptions options = with(compute, AttentionPath::matmul);
      options.recompute_every = every;
      expect_close(run(options), plain, 0, 0);
    }
    for (auto const part : {RecomputePart::attention, RecomputePart::mlp}) {
      ModelOptions options = with(compute, AttentionPath::matmul, true);
      options.recompute_part = part;
      expect_close(run(options), plain, 0, 0);
    }
  }
}

TEST(RecomputeTest, FrozenWeightsGetNoGradient) {
  SceneModel model = small_model(with(ComputeType::fp32, AttentionPath::matmul, true));
  model.set_trainable(Part::renderer, false);
  joint_chain(model, golden("model_weights", "in.")).at("loss").backward();
  for (auto const& p : model.parameters()) EXPECT_EQ(p.tensor.grad().defined(), p.trainable && p.part != Part::renderer) << p.name;
}

TEST(BlocksTest, KeptTokensEqualTheFirstOfAll) {
  ModelOptions const options = small_options();
  SceneModel const model = small_model(options);
  std::vector<Block> blocks(2);
  Slots slots;
  for (std::size_t i = 0; i < blocks.size(); ++i) add_block_slots(slots, blocks[i], "", options, 0.2, Part::renderer);
  for (std::size_t i = 0; i < slots.size(); ++i) *slots[i].tensor = initial_value(slots[i], 9, i);
  at::Tensor const x = at::arange(2 * 7 * 32, at::kFloat).sin().view({2, 7, 32});
  at::Tensor const all = run_blocks(blocks, x, {}, 7, options);
  for (std::int64_t const keep : {1, 3, 7}) {
    EXPECT_LT(relative_error(run_blocks(blocks, x, {}, keep, options), all.narrow(1, 0, keep)), 2e-6) << keep;
  }
}

TEST(SceneModelTest, FreshEditorWithHeadIsTheIdentityEdit) {
  SceneModel const model(small_options(), 11);
  Tensors const in = golden("model_weights", "in.");
  at::Tensor const v = model.velocity(in.at("x1"), in.at("t"), model.light_tokens(in.at("env")));
  EXPECT_EQ(v.abs().max().item<float>(), 0);
}

TEST(SceneModelTest, FreshEditorWithoutHeadGivesItsInput) {  // the reference's start: zero gates, no head
  SceneModel const model(reference_options(), 11);
  Tensors const in = golden("model_weights", "in.");
  EXPECT_TRUE(at::equal(model.velocity(in.at("x1"), in.at("t"), model.light_tokens(in.at("env"))), in.at("x1")));
}

TEST(SceneModelTest, FlowSpaceIsWhitenedAndInvertible) {
  SceneModel model(small_options(), 1);
  at::Tensor const mean = at::arange(32, at::kFloat), std = 1 + 0.25 * at::arange(32, at::kFloat);
  model.set_latent_statistics(mean, std);
  at::Tensor const latents = mean + 2 * std.expand({3, 6, 32});
  EXPECT_LT(relative_error(model.to_flow_space(latents), at::full({3, 6, 32}, 2.0)), 1e-6);
  EXPECT_LT(relative_error(model.from_flow_space(model.to_flow_space(latents)), latents), 1e-6);
}

TEST(SceneModelTest, FlowSpaceIsTheIdentityWhenNormalisationIsOff) {
  SceneModel model(reference_options(), 1);
  model.set_latent_statistics(at::full({32}, 5.0), at::full({32}, 3.0));
  at::Tensor const latents = at::arange(32, at::kFloat).view({1, 1, 32});
  EXPECT_TRUE(model.to_flow_space(latents).is_same(latents));
  EXPECT_TRUE(model.from_flow_space(latents).is_same(latents));
}

TEST(SceneModelTest, EmptyBatchGivesEmptyResults) {
  SceneModel const model(small_options(), 1);
  at::NoGradGuard const no_graph;
  EXPECT_EQ(model.reconstruct(at::zeros({0, 2, 3, 16, 16}), at::zeros({0, 2, 6, 16, 16})).sizes(), at::IntArrayRef({0, 6, 32}));
}

TEST(TimeEmbeddingTest, IsSinesThenCosines) {
  at::Tensor const embedding = sinusoidal_embedding(at::tensor({0.0F, 2.0F}), 6);  // frequencies 1, 1/100, 1/10000
  at::Tensor const angle = at::tensor({2.0, 0.02, 0.0002}, at::kDouble);
  EXPECT_TRUE(at::equal(embedding[0], at::tensor({0.0F, 0.0F, 0.0F, 1.0F, 1.0F, 1.0F})));
  EXPECT_LT(relative_error(embedding[1], at::cat({angle.sin(), angle.cos()})), 1e-6);
}

}  // namespace
}  // namespace duoflow::model::test
