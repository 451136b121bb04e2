#include "launch/editing.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "launch/batches.h"
#include "tests/launch/tiny_run.h"

namespace duoflow::launch {
namespace {

Config config_of(std::string const& kind) {
  Config config;
  config.model = tiny_options();
  config.editor_kind = kind;
  config.model.editor = kind == "flow" ? model::EditorKind::flow : model::EditorKind::noise_to_relit;
  config.training.light_dropout = 0.1;
  config.flow.num_ode_steps = 1;
  return config;
}

std::string refusal(Config const& config, EditRequest const& request) {
  try {
    edit_options(config, request);
  } catch (ConfigError const& error) {
    return error.what();
  }
  return "accepted";
}

// A model whose velocities are not zero.
model::SceneModel trained_model(Config const& config) {
  model::SceneModel model(config.model, 3);
  std::vector<std::pair<std::string, at::Tensor>> weights;
  for (auto const& parameter : model.parameters())
    if (parameter.trainable)
      weights.emplace_back(parameter.name,
                           parameter.tensor.detach() + 0.1 * at::arange(parameter.tensor.numel(), at::kFloat)
                                                                 .mul(0.3 + static_cast<double>(weights.size()))
                                                                 .cos()
                                                                 .view(parameter.tensor.sizes()));
  model.load(weights);
  return model;
}

TEST(EditOptionsTest, AnEditorThatKnowsNoTimeMakesOneStepOfEuler) {
  auto config = config_of("flow");
  config.editor_kind = "one_step";
  config.model.editor = model::EditorKind::one_step;
  EXPECT_EQ(refusal(config, {}), "accepted");
  EXPECT_EQ(refusal(config, {"euler", 1}), "accepted");
  EXPECT_NE(refusal(config, {"heun", 1}).find("1 steps of heun: an editor of kind one_step knows no time"), std::string::npos);
  EXPECT_NE(refusal(config, {"", 4}).find("4 steps of euler"), std::string::npos);
}

TEST(KeptLightsTest, AreAFunctionOfSeedAndPositionWithTheShareAsked) {
  std::int64_t const samples = 4000;
  std::vector<std::uint64_t> positions(samples);
  std::iota(positions.begin(), positions.end(), std::uint64_t{100});
  auto const all = kept_lights(positions, 0.3, 7, at::kCPU);
  EXPECT_NEAR(all.mean().item<double>(), 0.7, 4 * std::sqrt(0.3 * 0.7 / samples));
  for (std::int64_t const split : {1, 1333, 3999})
    EXPECT_TRUE(at::equal(at::cat({kept_lights({positions.begin(), positions.begin() + split}, 0.3, 7, at::kCPU),
                                   kept_lights({positions.begin() + split, positions.end()}, 0.3, 7, at::kCPU)}),
                          all));
  EXPECT_FALSE(at::equal(kept_lights(positions, 0.3, 8, at::kCPU), all));
  EXPECT_FALSE(kept_lights(positions, 0, 7, at::kCPU).defined());
}

TEST(EditingTest, GuidanceIsTheStraightLineThroughBothVelocities) {
  auto const config = config_of("flow");
  auto const model = trained_model(config);
  auto const batch = tiny_batch(2);
  at::NoGradGuard const no_graph;
  auto const edited = [&](double guidance) {
    return edit_latents(model, batch.x0, batch.env, {0, 1}, edit_options(config, {.guidance = guidance}));
  };
  auto const light = model.light_tokens(batch.env);
  auto const t = at::zeros({2});
  auto const v = model.velocity(batch.x0, t, light, batch.x0);
  auto const v_none = model.velocity(batch.x0, t, at::zeros_like(light), batch.x0);
  EXPECT_GT((v - v_none).abs().max().item<float>(), 1e-3);
  for (double const s : {0.0, 1.0, 2.5})
    EXPECT_TRUE(at::allclose(edited(s), batch.x0 + v_none + s * (v - v_none), 1e-5, 1e-5)) << s;
}

TEST(EditingTest, StochasticSamplesAreTheirOwnAndTheSeeds) {
  auto const config = config_of("noise_to_relit");
  auto const model = trained_model(config);
  auto const batch = tiny_batch(3);
  auto const edited = [&](std::vector<std::int64_t> const& samples, EditRequest const& request) {
    auto const index = at::tensor(samples);
    return edit_latents(model, batch.x0.index_select(0, index), batch.env.index_select(0, index), samples,
                        edit_options(config, request));
  };
  EditRequest const noisy{.steps = 3, .stochastic = 0.5, .noise_seed = 5};
  auto const all = edited({0, 1, 2}, noisy);
  EXPECT_TRUE(at::equal(edited({0, 1, 2}, noisy), all));
  EXPECT_TRUE(at::allclose(edited({1}, noisy)[0], all[1], 1e-5, 1e-5));
  auto other = noisy;
  other.noise_seed = 6;
  EXPECT_FALSE(at::allclose(edited({0, 1, 2}, other), all, 1e-3, 1e-3));
  EditRequest const ode{.solver = "euler", .steps = 3, .noise_seed = 5};
  auto nearly = noisy;
  nearly.stochastic = 1e-12;
  EXPECT_TRUE(at::allclose(edited({0, 1, 2}, nearly), edited({0, 1, 2}, ode), 1e-4, 1e-4));
  EXPECT_FALSE(at::allclose(edited({0, 1, 2}, ode), all, 1e-3, 1e-3));
}

TEST(EditingTest, WhatTheModelCannotDoIsRefused) {
  auto const flow = config_of("flow"), noise = config_of("noise_to_relit");
  auto undropped = flow;
  undropped.training.light_dropout = 0;
  auto const expect = [](std::string const& message, char const* part) {
    EXPECT_NE(message.find(part), std::string::npos) << message;
  };
  expect(refusal(undropped, {.guidance = 2}), "training.light_dropout");
  expect(refusal(undropped, {.guidance = 1}), "accepted");
  expect(refusal(flow, {.guidance = -1}), ">= 0");
  expect(refusal(flow, {.stochastic = 0.5}), "kind flow");
  expect(refusal(flow, {.noise_seed = 3}), "kind flow");
  expect(refusal(noise, {.stochastic = -0.5}), ">= 0");
  expect(refusal(noise, {.solver = "heun", .stochastic = 0.5}), "leave one out");
  expect(refusal(noise, {.solver = "euler", .stochastic = 0.5, .noise_seed = 3}), "accepted");
}

}  // namespace
}  // namespace duoflow::launch
