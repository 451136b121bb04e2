#include "launch/parameter_rules.h"

#include <cmath>
#include <set>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "dist/thread_backend.h"
#include "launch/run_setup.h"
#include "tests/launch/tiny_run.h"

namespace duoflow::launch {
namespace {

std::set<std::string> training(model::SceneModel const& model) {
  std::set<std::string> names;
  for (auto const& parameter : model.parameters())
    if (parameter.tensor.requires_grad()) names.insert(parameter.name);
  return names;
}

template <class Action>
std::string error_of(Action const& action) {
  try {
    action();
  } catch (ConfigError const& error) {
    return error.what();
  }
  return "no error";
}

TEST(FreezeTest, WhatMatchesIsTakenFromWhatWouldTrain) {
  auto model = tiny_model(/*train_renderer=*/true);
  auto expected = training(model);
  Config config;
  config.training.freeze = {"env_tokenizer.*", "transformer_decoder.0.norm?.weight", "transformer_encoder.*"};
  freeze_by_rules(model, config);
  EXPECT_EQ(expected.erase("env_tokenizer.1.weight") + expected.erase("transformer_decoder.0.norm1.weight") +
                expected.erase("transformer_decoder.0.norm2.weight"),
            3U);
  EXPECT_EQ(training(model), expected);  // the encoder was frozen before
}

TEST(FreezeTest, APatternThatMatchesNothingNamesTheNearestKey) {
  auto model = tiny_model(true);
  Config config;
  config.training.freeze = {"env_tokeniser.1.*"};
  auto const message = error_of([&] { freeze_by_rules(model, config); });
  for (auto const* part : {"training.freeze", "env_tokeniser.1.*", "env_tokenizer.1.weight"})
    EXPECT_NE(message.find(part), std::string::npos) << message;
}

TEST(FreezeTest, AnObjectiveKeepsSomethingToTrain) {
  Config config;
  for (auto const* objective : {"joint", "reconstruction"}) {
    auto model = tiny_model(true);
    config.objective = objective;
    config.training.freeze = {"*"};
    EXPECT_NE(error_of([&] { freeze_by_rules(model, config); }).find(objective), std::string::npos);
  }
}

TEST(FreezeTest, FrozenParametersLieOutsideTheFlatBufferAndStayAsTheyAre) {
  for (int const ranks : {1, 2, 3}) {
    TinyShape shape{6, 2};
    shape.freeze = {"transformer_editor.0.mlp.*", "image_token_decoder.0.weight", "light_embedder.mlp.2.bias"};
    shape.zero = ranks == 2 ? 1 : 0;
    dist::run_ranks(ranks, [&](dist::Communicator const& group) {
      TinyRun run(group, shape);
      auto const all = tiny_model(true).parameters();
      EXPECT_FALSE(run.update(tiny_batch(6, 0)));
      auto const now = run.model().parameters();
      int frozen = 0;
      for (std::size_t i = 0; i < all.size(); ++i) {
        bool const trains = now[i].tensor.requires_grad();
        EXPECT_EQ(at::equal(now[i].tensor, all[i].tensor), !trains) << all[i].name;
        EXPECT_EQ(now[i].tensor.is_alias_of(run.buffer().parameters()), trains) << all[i].name;
        if (!trains && all[i].tensor.requires_grad()) ++frozen;
      }
      EXPECT_EQ(frozen, 4);
    });
  }
}

TEST(LearningRateScaleTest, TheLastRuleThatMatchesCountsAndDepthMultiplies) {
  auto options = tiny_options();
  options.editor_n_layer = 3;
  model::SceneModel const model(options, 1);
  Config config;
  config.model = options;
  config.training.weight_decay = 0.125;
  config.training.lr_scale = {"transformer_editor.*=0.5", "transformer_editor.1.*=2", "*_tokenizer.*=3"};
  config.training.layer_lr_decay = 0.1;
  auto const groups = parameter_groups(model, config);
  auto const factor = [&](std::string const& name) {
    return groups.rate_factor[static_cast<std::size_t>(groups.group_of(name))];
  };
  auto const decay = [&](std::string const& name) {
    return groups.weight_decay[static_cast<std::size_t>(groups.group_of(name))];
  };
  EXPECT_NEAR(factor("transformer_editor.0.attn.fc.weight"), 0.5 * 0.01, 1e-12);
  EXPECT_NEAR(factor("transformer_editor.1.attn.fc.weight"), 2 * 0.1, 1e-12);
  EXPECT_EQ(factor("transformer_editor.2.attn.fc.weight"), 0.5);
  EXPECT_EQ(factor("env_tokenizer.1.weight"), 3);
  EXPECT_EQ(factor("transformer_decoder.0.attn.fc.weight"), 1);
  EXPECT_EQ(groups.group_of("transformer_decoder.0.attn.fc.weight"), 0);
  EXPECT_EQ(groups.group_of("transformer_decoder.0.norm1.weight"), 1);
  EXPECT_EQ(decay("transformer_editor.0.attn.fc.weight"), 0.125);
  EXPECT_EQ(decay("transformer_editor.0.attn.q_norm.weight"), 0);
  EXPECT_NEAR(factor("transformer_editor.0.attn.q_norm.weight"), 0.005, 1e-12);
}

TEST(LearningRateScaleTest, ARuleWithoutEffectIsAnError) {
  auto model = tiny_model(/*train_renderer=*/false);
  Config config;
  auto const message_of = [&](std::string const& rule) {
    config.training.lr_scale = {rule};
    return error_of([&] { parameter_groups(model, config); });
  };
  EXPECT_NE(message_of("transformer_editors.*=2").find("transformer_editor.0."), std::string::npos);
  EXPECT_NE(message_of("transformer_decoder.*=2").find("do not train"), std::string::npos);
  for (auto const* rule : {"transformer_editor.*", "=2", "transformer_editor.*=", "transformer_editor.*=0",
                           "transformer_editor.*=-1", "transformer_editor.*=1x", "transformer_editor.*=inf"})
    EXPECT_NE(message_of(rule).find("GLOB=FACTOR"), std::string::npos) << rule;
}

// AdamW's first step is the rate times the gradient's sign (eps aside), whatever its size: without decay, where nothing
// is clipped by it, a factor shows as it is.
TEST(LearningRateScaleTest, AFactorScalesTheFirstStepOfWhatItNames) {
  TinyShape shape{4, 1};
  TinyRun plain({}, shape);
  shape.lr_scale = {"env_tokenizer.*=0.25"};
  TinyRun scaled({}, shape);
  auto const start = tiny_model(true).parameters();
  plain.update(tiny_batch(4, 0));
  scaled.update(tiny_batch(4, 0));
  auto const one = plain.model().parameters(), other = scaled.model().parameters();
  for (std::size_t i = 0; i < start.size(); ++i) {
    at::Tensor const step = one[i].tensor - start[i].tensor, scaled_step = other[i].tensor - start[i].tensor;
    double const factor = start[i].name == "env_tokenizer.1.weight" ? 0.25 : 1;
    EXPECT_TRUE(at::allclose(scaled_step, step * factor, 1e-3, 1e-6)) << start[i].name;
  }
}

}  // namespace
}  // namespace duoflow::launch
