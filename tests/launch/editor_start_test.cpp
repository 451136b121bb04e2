#include "launch/editor_start.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "dist/checkpoint/safetensors.h"
#include "launch/model_setup.h"
#include "model/flow/random.h"
#include "tests/launch/scratch_folder.h"
#include "tests/launch/tiny_run.h"

namespace duoflow::launch {
namespace {

// Every number of it random: norm gains too.
model::SceneModel filled(model::ModelOptions const& options) {
  model::SceneModel model(options, 3);
  std::vector<std::pair<std::string, at::Tensor>> weights;
  for (auto const& parameter : model.parameters())
    if (parameter.trainable)
      weights.emplace_back(
          parameter.name,
          parameter.tensor.detach() + 0.2 * model::normal_tensor(parameter.tensor.sizes().vec(), 1, weights.size(),
                                                                 model::Stream::initialisation));
  model.load(weights);
  return model;
}

Config config_of(model::EditorKind kind, std::string const& init, std::string const& checkpoint = "") {
  Config config;
  config.model = tiny_options();
  config.model.editor = kind;
  config.model.editor_n_layer = config.model.decoder_n_layer = 2;
  config.model.velocity_head = false;
  config.editor_init = init;
  config.editor_init_checkpoint = checkpoint;
  return config;
}

std::string error_of(Config const& config) {
  auto model = filled(config.model);
  try {
    start_editor(model, config);
  } catch (ConfigError const& error) {
    return error.what();
  }
  return "no error";
}

at::Tensor parameter(model::SceneModel const& model, std::string const& name) {
  for (auto const& one : model.parameters())
    if (one.name == name) return one.tensor.detach();
  return {};
}

TEST(EditorStartTest, AFlowEditorStartsAsTheOneStepEditorItIsGiven) {
  ScratchFolder const folder;
  auto const path = (folder.path() / "one_step.safetensors").string();
  auto const one_step = filled(config_of(model::EditorKind::one_step, "zero").model);
  dist::write_safetensors(path, model_tensors(one_step), {});
  auto const config = config_of(model::EditorKind::flow, "one_step", path);
  auto flow = filled(config.model);
  start_editor(flow, config);
  auto const batch = tiny_batch(2);
  at::NoGradGuard const no_graph;
  // Without a velocity head v is the residual stream; the one-step editor's is its output less its input.
  auto const v = flow.velocity(batch.x0, batch.t, flow.light_tokens(batch.env));
  auto const expected = one_step.velocity(batch.x0, at::zeros({2}), one_step.light_tokens(batch.env)) + batch.x0;
  EXPECT_LT((v - expected).abs().max().item<float>(), 2e-4 * expected.abs().max().item<float>());
}

TEST(EditorStartTest, TheRenderersBlocksMayStartIt) {
  auto const config = config_of(model::EditorKind::flow, "decoder");
  auto model = filled(config.model);
  start_editor(model, config);
  for (auto const* block : {"0", "1"}) {
    std::string const to = std::string("transformer_editor.") + block + ".",
                      from = std::string("transformer_decoder.") + block + ".";
    for (auto const* name : {"attn.to_qkv.weight", "attn.q_norm.weight", "mlp.mlp.2.weight"})
      EXPECT_TRUE(at::equal(parameter(model, to + name), parameter(model, from + name))) << name;
    auto const bias = parameter(model, to + "adaLN_modulation.1.bias").view({6, -1});
    EXPECT_TRUE(at::allclose(bias[1] + 1, parameter(model, from + "norm1.weight")));
    EXPECT_TRUE(at::allclose(bias[4] + 1, parameter(model, from + "norm2.weight")));
    EXPECT_TRUE(at::equal(bias[0], at::zeros_like(bias[0])));
    EXPECT_TRUE(at::equal(bias[5], at::ones_like(bias[5])));
  }
}

TEST(EditorStartTest, WithAVelocityHeadTheFirstEditIsStillTheIdentity) {
  auto config = config_of(model::EditorKind::flow, "decoder");
  config.model.velocity_head = true;
  model::SceneModel model(config.model, 1);
  start_editor(model, config);
  auto const batch = tiny_batch(2);
  EXPECT_EQ(model.velocity(batch.x0, batch.t, model.light_tokens(batch.env)).abs().max().item<float>(), 0);
}

TEST(EditorStartTest, PlainBlocksTakeTheRenderersWithTheirNorms) {
  auto const config = config_of(model::EditorKind::one_step, "decoder");
  auto model = filled(config.model);
  start_editor(model, config);
  EXPECT_TRUE(at::equal(parameter(model, "transformer_editor.1.norm2.weight"),
                        parameter(model, "transformer_decoder.1.norm2.weight")));
}

TEST(EditorStartTest, AMissingBlockIsNamedWithTheNearestKey) {
  auto config = config_of(model::EditorKind::flow, "decoder");
  config.model.editor_n_layer = 3;
  auto const message = error_of(config);
  for (auto const* part : {"transformer_decoder.2.", "the nearest is transformer_decoder.", "n_layer"})
    EXPECT_NE(message.find(part), std::string::npos) << message;
}

TEST(EditorStartTest, AnEditorOfOtherBlocksOrAnotherWidthIsRefused) {
  ScratchFolder const folder;
  auto const flow = (folder.path() / "flow.safetensors").string(), wide = (folder.path() / "wide.safetensors").string();
  dist::write_safetensors(flow, model_tensors(filled(config_of(model::EditorKind::flow, "zero").model)), {});
  auto options = config_of(model::EditorKind::one_step, "zero").model;
  options.d = 32;
  dist::write_safetensors(wide, model_tensors(filled(options)), {});
  auto const with_norms = error_of(config_of(model::EditorKind::flow, "one_step", flow));
  EXPECT_NE(with_norms.find("transformer_editor.0.norm1.weight"), std::string::npos) << with_norms;
  auto const shapes = error_of(config_of(model::EditorKind::flow, "one_step", wide));
  EXPECT_NE(shapes.find("has shape ["), std::string::npos) << shapes;
}

TEST(EditorStartTest, WhatWouldBeLeftOutOfASourceIsAnError) {
  ScratchFolder const folder;
  auto const residual = (folder.path() / "residual.safetensors").string(), longer = (folder.path() / "longer.safetensors").string();
  dist::write_safetensors(residual, model_tensors(filled(config_of(model::EditorKind::residual, "zero").model)), {});
  auto options = config_of(model::EditorKind::one_step, "zero").model;
  ++options.editor_n_layer;
  dist::write_safetensors(longer, model_tensors(filled(options)), {});
  auto const head = error_of(config_of(model::EditorKind::flow, "one_step", residual));
  EXPECT_NE(head.find("is a residual editor"), std::string::npos) << head;
  auto const blocks = error_of(config_of(model::EditorKind::flow, "one_step", longer));
  EXPECT_NE(blocks.find("has more blocks than the"), std::string::npos) << blocks;
}

}  // namespace
}  // namespace duoflow::launch
