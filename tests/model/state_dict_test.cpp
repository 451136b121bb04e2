#include <cmath>
#include <stdexcept>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/model/small_model.h"

namespace duoflow::model::test {
namespace {

std::vector<std::string> names(SceneModel const& model) {
  std::vector<std::string> all;
  for (auto const& parameter : model.parameters()) all.push_back(parameter.name);
  return all;
}

at::Tensor parameter(SceneModel const& model, std::string const& name) {
  for (auto const& candidate : model.parameters()) {
    if (candidate.name == name) return candidate.tensor;
  }
  throw std::out_of_range(name);
}

TEST(StateDictTest, HasTheReferencesKeysInItsOrder) {
  ModelOptions options = reference_options();
  options.encoder_n_layer = options.decoder_n_layer = options.editor_n_layer = 1;
  std::vector<std::string> const expected{
      "n_light_field_latent", "image_tokenizer.1.weight", "target_pose_tokenizer.1.weight", "env_tokenizer.1.weight",
      "image_token_decoder.0.weight", "image_token_decoder.1.weight",
      "transformer_encoder.0.norm1.weight", "transformer_encoder.0.attn.to_qkv.weight", "transformer_encoder.0.attn.fc.weight",
      "transformer_encoder.0.attn.q_norm.weight", "transformer_encoder.0.attn.k_norm.weight", "transformer_encoder.0.norm2.weight",
      "transformer_encoder.0.mlp.mlp.0.weight", "transformer_encoder.0.mlp.mlp.2.weight",
      "transformer_decoder.0.norm1.weight", "transformer_decoder.0.attn.to_qkv.weight", "transformer_decoder.0.attn.fc.weight",
      "transformer_decoder.0.attn.q_norm.weight", "transformer_decoder.0.attn.k_norm.weight", "transformer_decoder.0.norm2.weight",
      "transformer_decoder.0.mlp.mlp.0.weight", "transformer_decoder.0.mlp.mlp.2.weight",
      "transformer_input_layernorm_decoder.weight",
      "transformer_editor.0.attn.to_qkv.weight", "transformer_editor.0.attn.fc.weight", "transformer_editor.0.attn.q_norm.weight",
      "transformer_editor.0.attn.k_norm.weight", "transformer_editor.0.mlp.mlp.0.weight", "transformer_editor.0.mlp.mlp.2.weight",
      "transformer_editor.0.adaLN_modulation.1.weight", "transformer_editor.0.adaLN_modulation.1.bias",
      "time_embedder.mlp.0.weight", "time_embedder.mlp.0.bias", "time_embedder.mlp.2.weight", "time_embedder.mlp.2.bias",
      "latent_mean", "latent_std"};
  EXPECT_EQ(names(SceneModel(options, 1)), expected);
}

TEST(StateDictTest, OwnKeysComeAfterTheReferencesAndMoveNoneOfItsValues) {
  SceneModel const reference(reference_options(), 7), ours(small_options(), 7);
  auto const shorter = reference.parameters(), longer = ours.parameters();
  ASSERT_EQ(longer.size(), shorter.size() + 2 + 4);
  for (std::size_t i = 0; i + 2 < shorter.size(); ++i) {  // the two buffers follow the own keys
    EXPECT_EQ(longer[i].name, shorter[i].name);
    EXPECT_TRUE(at::equal(longer[i].tensor, shorter[i].tensor)) << shorter[i].name;
  }
  EXPECT_EQ(longer[shorter.size() - 2].name, "editor_velocity_head.0.weight");
  EXPECT_EQ(longer[shorter.size()].name, "light_embedder.mlp.0.weight");
  EXPECT_FALSE(longer.back().trainable);
}

TEST(StateDictTest, InitialValuesDependOnTheSeedAlone) {
  SceneModel const a(small_options(), 3), b(small_options(), 3), c(small_options(), 4);
  auto const first = a.parameters(), second = b.parameters();
  for (std::size_t i = 0; i < first.size(); ++i) EXPECT_TRUE(at::equal(first[i].tensor, second[i].tensor)) << first[i].name;
  EXPECT_FALSE(at::equal(parameter(a, "n_light_field_latent"), parameter(c, "n_light_field_latent")));
}

TEST(StateDictTest, InitialSpreadFollowsTheReference) {
  ModelOptions options = small_options();
  options.d = 128;  // large enough to measure a spread: 49152 values and more, 1% is three standard errors
  SceneModel const model(options, 5);
  auto const spread = [&](std::string const& name) { return parameter(model, name).detach().std().item<double>(); };
  EXPECT_NEAR(spread("transformer_encoder.0.attn.to_qkv.weight"), 0.02 / std::sqrt(2.0), 0.01 * 0.0141);
  EXPECT_NEAR(spread("transformer_decoder.1.mlp.mlp.0.weight"), 0.02 / std::sqrt(4.0), 0.01 * 0.01);
  at::Tensor const editor = parameter(model, "transformer_editor.1.mlp.mlp.2.weight").detach();  // fan-in 512
  EXPECT_NEAR(editor.std().item<double>(), 1 / std::sqrt(3.0 * 512), 0.01 / std::sqrt(3.0 * 512));
  EXPECT_LE(editor.abs().max().item<double>(), 1 / std::sqrt(512.0));
  EXPECT_GT(parameter(model, "time_embedder.mlp.0.bias").detach().abs().min().item<double>(), 0);
  options.depth_init = false;
  EXPECT_NEAR(parameter(SceneModel(options, 5), "transformer_encoder.0.attn.to_qkv.weight").detach().std().item<double>(), 0.02 / 2, 0.01 * 0.01);
}

TEST(StateDictTest, NoTwoParametersShareTheirRandomNumbers) {
  SceneModel const model(small_options(), 5);
  at::Tensor const encoder = parameter(model, "transformer_encoder.0.attn.to_qkv.weight").detach();
  at::Tensor const decoder = parameter(model, "transformer_decoder.0.attn.to_qkv.weight").detach();
  double const cosine = ((encoder * decoder).sum() / (encoder.norm() * decoder.norm())).item<double>();
  EXPECT_LT(std::abs(cosine), 0.1);  // 3072 independent pairs: standard deviation 0.018
}

TEST(StateDictTest, LoadReportsMissingAndUnexpectedKeysAndTakesOtherTypes) {
  SceneModel model(small_options(), 1);
  at::Tensor const half = at::full({32}, 1.5, at::kBFloat16);
  auto const report = model.load({{"image_token_decoder.0.weight", half}, {"loss_computer.vgg.0.weight", half}});
  EXPECT_EQ(report.unexpected, std::vector<std::string>{"loss_computer.vgg.0.weight"});
  EXPECT_EQ(report.missing.size(), names(model).size() - 1);
  at::Tensor const loaded = parameter(model, "image_token_decoder.0.weight");
  EXPECT_TRUE(at::equal(loaded.detach(), at::full({32}, 1.5)));
  EXPECT_TRUE(loaded.requires_grad());
}

TEST(StateDictTest, ShapeMismatchNamesKeyAndBothShapesAndChangesNothing) {
  SceneModel model(small_options(), 1);
  try {
    model.load({{"image_token_decoder.0.weight", at::zeros({32})}, {"n_light_field_latent", at::zeros({5, 32})}});
    FAIL() << "expected an error";
  } catch (std::invalid_argument const& error) {
    std::string const text = error.what();
    EXPECT_NE(text.find("n_light_field_latent"), std::string::npos);
    EXPECT_NE(text.find("[5,32]"), std::string::npos);
    EXPECT_NE(text.find("[6,32]"), std::string::npos);
  }
  EXPECT_TRUE(at::equal(parameter(model, "image_token_decoder.0.weight").detach(), at::ones({32})));
}

TEST(StateDictTest, SetTrainableTouchesItsPartAndNoBuffer) {
  SceneModel model(small_options(), 1);
  model.set_trainable(Part::renderer, false);
  model.set_trainable(Part::editor, true);
  for (auto const& p : model.parameters()) {
    EXPECT_EQ(p.tensor.requires_grad(), p.trainable && p.part != Part::renderer) << p.name;
  }
}

TEST(StateDictTest, ImpossibleSizesAreErrors) {
  ModelOptions options = small_options();
  options.d_head = 20;
  EXPECT_THROW(SceneModel(options, 1), std::invalid_argument);
  options = small_options();
  options.image_size = 18;
  EXPECT_THROW(SceneModel(options, 1), std::invalid_argument);
}

}  // namespace
}  // namespace duoflow::model::test
