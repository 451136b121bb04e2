// The objective's keys: weightings, times, and what they are where no key says.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "launch/config.h"
#include "tests/launch/config_cases.h"

namespace duoflow::launch {
namespace {

std::string flow_yaml(std::string const& keys) {
  return "model: {transformer: {editor: {flow_matching: {" + keys + "}}}}";
}

using Clamp = std::vector<double>;

struct Objective {
  std::string weighting, times;
  Clamp clamp;
  double ema = 0;
  bool operator==(Objective const&) const = default;
};

void PrintTo(Objective const& o, std::ostream* out) {
  *out << o.weighting << " " << o.times << " " << o.clamp.size() << " " << o.ema;
}

Objective objective_of(Config const& c) {
  return {c.flow.weighting, c.flow.time_sampling, c.flow.weight_clamp, c.flow.weight_ema};
}
Objective objective_with(std::vector<std::string> const& overrides) { return objective_of(parse("", overrides)); }

Objective const kMeasured{"normalized", "early_bias", {0.001, 10}, 0.9}, kPlain{"fixed", "uniform", {}, 0};
std::string const kFlowClass = "model.class_name=model.LVSM_flow_match_editor.FlowMatchEditor";

TEST(ConfigWeightingTest, AFlowEditorWithBothLossesGetsWhatEditedBest) {
  EXPECT_EQ(objective_with({}), kMeasured);
  EXPECT_EQ(objective_with({kFlow + "velocity_loss_weight=2", kFlow + "render_loss_weight=3"}), kMeasured);
}

TEST(ConfigWeightingTest, TheReferencesClassesOtherEditorsAndTheFirstStageGetThePlainObjective) {
  EXPECT_EQ(objective_with({kFlowClass}), kPlain);
  for (std::string const kind : {"noise_to_relit", "one_step", "residual"})
    EXPECT_EQ(objective_with({"model.transformer.editor.kind=" + kind}), kPlain) << kind;
  EXPECT_EQ(objective_with({"objective=reconstruction"}), kPlain);
  EXPECT_EQ(objective_of(parse_stored_config("", "manifest.json", {})), kPlain);
}

TEST(ConfigWeightingTest, OneLossAloneIsNotBalanced) {
  for (auto const& off : {kFlow + "velocity_loss_weight=0", kFlow + "render_loss_weight=0",
                                std::string("training.l2_loss_weight=0"), std::string("training.skip_renderer=true")})
    EXPECT_EQ(objective_with({off}), kPlain) << off;
}

TEST(ConfigWeightingTest, AWrittenWeightingHasNoClampAndNoSmoothingUnlessTheyAreWritten) {
  EXPECT_EQ(objective_with({kFlow + "weighting=normalized"}), (Objective{"normalized", "early_bias", {}, 0}));
  EXPECT_EQ(objective_with({kFlow + "normalize_losses=true"}), (Objective{"normalized", "early_bias", {}, 0}));
  EXPECT_EQ(objective_with({kFlow + "normalize_losses=false"}), (Objective{"fixed", "early_bias", {}, 0}));
  EXPECT_EQ(objective_with({kFlow + "weighting=fixed", kFlow + "time_sampling=uniform"}), kPlain);
  EXPECT_EQ(objective_with({kFlow + "weighting=normalized", kFlow + "weight_ema=0.5", kFlow + "weight_clamp=[2]"}),
            (Objective{"normalized", "early_bias", {2}, 0.5}));
  EXPECT_EQ(objective_with({kFlow + "weight_ema=0"}), (Objective{"normalized", "early_bias", {0.001, 10}, 0}));
}

TEST(ConfigWeightingTest, WhatIsWrittenBesideAReferencesClassHolds) {
  EXPECT_EQ(objective_with({kFlowClass, kFlow + "weighting=normalized", kFlow + "time_sampling=late_bias"}),
            (Objective{"normalized", "late_bias", {}, 0}));
}

TEST(ConfigWeightingTest, ARunThatBeganPlainGoesOnPlainUnlessAKeySaysOtherwise) {
  auto const gone_on = [](Config const& begun, std::vector<std::string> const& overrides) {
    auto config = parse("", overrides);
    keep_plain_objective(config, begun);
    return objective_of(config);
  };
  auto const plain = parse("", {kFlow + "weighting=fixed", kFlow + "time_sampling=uniform"}), measured = parse("");
  EXPECT_EQ(gone_on(plain, {}), kPlain);
  EXPECT_EQ(gone_on(measured, {}), kMeasured);
  EXPECT_EQ(gone_on(plain, {kFlow + "weighting=normalized"}), (Objective{"normalized", "uniform", {}, 0}));
  EXPECT_EQ(gone_on(plain, {kFlow + "time_sampling=early_bias"}), (Objective{"fixed", "early_bias", {}, 0}));
  EXPECT_EQ(gone_on(plain, {kFlow + "weight_ema=0.5"}), (Objective{"normalized", "uniform", {0.001, 10}, 0.5}));
  auto residual = parse("", {"model.class_name=model.LVSM_scene_encoder_decoder_wEditor_residual.LatentSceneEditor",
                             "model.transformer.editor.use_residual_mode=true"});
  EXPECT_EQ(residual.model.residual_scale, 0.05);
  keep_plain_objective(residual, plain);
  EXPECT_EQ(residual.model.residual_scale, 1);
}

TEST(ConfigWeightingTest, ChosenDefaultsAreWrittenOutInTheEffectiveConfig) {
  for (auto const& overrides : {std::vector<std::string>(), {kFlowClass}, {kFlow + "render_loss_weight=0"}}) {
    auto const config = parse("", overrides);
    EXPECT_EQ(values_of(parse(effective_yaml(config))), values_of(config));
    EXPECT_EQ(values_of(parse_stored_config(effective_yaml(config), "manifest.json", {})), values_of(config));
  }
}

TEST(ConfigWeightingTest, OptionsOfAnotherWeightingAreNoted) {
  for (std::string const option :
       {"velocity_only_steps=3", "alternating_period=3", "uncertainty_lr=0.5", "gradient_interval=3", "warmup_steps=3",
        "schedule_form=linear", "velocity_start=3", "velocity_end=3", "render_start=3", "render_end=3"}) {
    auto const notes = parse("", {kFlow + option}).notes;
    ASSERT_EQ(notes.size(), 1u) << option;
    EXPECT_NE(notes[0].find("has no effect (it is of weighting: "), std::string::npos) << notes[0];
  }
  EXPECT_TRUE(parse("", {kFlow + "warmup_steps=3", kFlow + "weighting=schedule"}).notes.empty());
}

TEST(ConfigWeightingTest, OptionsOfAnotherTimeSamplingAreNoted) {
  for (std::string const option : {"time_mean=1", "time_deviation=2", "time_mode_scale=1", "discrete_times=[0,1]"}) {
    auto const notes = parse("", {kFlow + option}).notes;
    ASSERT_EQ(notes.size(), 1u) << option;
    EXPECT_NE(notes[0].find("has no effect (it is of time_sampling: "), std::string::npos) << notes[0];
  }
  EXPECT_TRUE(parse("", {kFlow + "time_sampling=logit_normal", kFlow + "time_mean=1"}).notes.empty());
  auto const notes = parse("", {"model.transformer.editor.kind=one_step", kFlow + "time_sampling=mixed"}).notes;
  ASSERT_EQ(notes.size(), 1u);
  EXPECT_NE(notes[0].find("knows no time"), std::string::npos) << notes[0];
}

TEST(ConfigWeightingTest, AWeightingOfBothLossesNeedsBoth) {
  for (auto const& name : model::weighting_names()) {
    std::vector<std::string> const given{kFlow + "weighting=" + name, "training.freeze_reconstructor_renderer=false"};
    EXPECT_EQ(parse("", given).flow.weighting, name);
    bool const alone = name == "fixed" || name == "schedule";
    for (std::string const off : {"velocity_loss_weight=0", "render_loss_weight=0"}) {
      auto overrides = given;
      overrides.push_back(kFlow + off);
      if (alone)
        EXPECT_NO_THROW(parse("", overrides)) << name;
      else
        expect_error({"weighting = " + name, "one of them is off"}, "", overrides);
    }
  }
}

TEST(ConfigWeightingTest, OptionsThatAWeightingDoesNotActOnAreErrorsBeforeAnyStep) {
  for (std::string const name : {"fixed", "schedule", "two_stage", "alternating", "pcgrad"})
    for (std::string const option : {"weight_ema=0.5", "weight_clamp=10"})
      expect_error({"weighting = " + name, "no clamp and no EMA"}, "", {kFlow + "weighting=" + name, kFlow + option});
  expect_error({"uncertainty", "no EMA"}, "", {kFlow + "weighting=uncertainty", kFlow + "weight_ema=0.5"});
  EXPECT_NO_THROW(parse("", {kFlow + "weighting=uncertainty", kFlow + "weight_clamp=10"}));
  EXPECT_NO_THROW(parse("", {"objective=reconstruction", kFlow + "weight_ema=0.5"}));  // no weighting is made
  for (std::string const name : {"uncertainty", "pcgrad"}) {
    auto const notes = parse("", {kFlow + "weighting=" + name, kFlow + "statistics=lagged"}).notes;
    ASSERT_EQ(notes.size(), 1U) << name;
    EXPECT_NE(notes[0].find("waits for no statistics"), std::string::npos) << notes[0];
  }
}

TEST(ConfigWeightingTest, SeparateGraphsNeedsARendererThatTrainsAndConstantLatents) {
  auto const name = kFlow + "weighting=separate_graphs",
             free = std::string("training.freeze_reconstructor_renderer=false");
  EXPECT_NO_THROW(parse("", {name, free}));
  expect_error({"separate_graphs", "would train nothing"}, "", {name});
  expect_error({"separate_graphs", "latents: cached"}, "", {name, free, "latents=online"});
}

TEST(ConfigWeightingTest, ExposedStatisticsAreOfGradientBalanceAtVPredAlone) {
  std::string const balance = kFlow + "weighting=gradient_balance", exposed = kFlow + "statistics=exposed";
  EXPECT_TRUE(weighting_options(parse("", {balance, exposed})).exposed);
  expect_error({"normalized", "exposed", "use current"}, "", {kFlow + "weighting=normalized", exposed});
  expect_error({"gradient_balance", "exposed", "use current"}, "",
               {balance, exposed, kFlow + "gradient_space=parameters"});
}

TEST(ConfigWeightingTest, GradientsAreNotMeasuredInBf16) {
  std::vector<std::string> const both{kFlow + "weighting=gradient_balance", "dist.gradient_dtype=bf16"};
  EXPECT_NO_THROW(parse("", both));
  expect_error({"dist.gradient_dtype = bf16", "parameters"}, "",
               {both[0], both[1], kFlow + "gradient_space=parameters"});
}

TEST(ConfigWeightingTest, NormalizeLossesIsWeightingNormalized) {
  EXPECT_EQ(parse("", {kFlow + "normalize_losses=true"}).flow.weighting, "normalized");
  EXPECT_EQ(parse("", {kFlow + "normalize_losses=true", kFlow + "weighting=normalized"}).flow.weighting, "normalized");
  EXPECT_EQ(parse("", {kFlow + "normalize_losses=false", kFlow + "weighting=schedule"}).flow.weighting, "schedule");
  expect_error({"normalize_losses", "contradicts", "fixed"}, "",
               {kFlow + "normalize_losses=true", kFlow + "weighting=fixed"});
}

TEST(ConfigWeightingTest, NormalizeLossesAndWeightingOfOnePlaceMustAgree) {
  expect_error({"normalize_losses: false", "contradicts", "weighting: normalized", "keep one"},
               flow_yaml("normalize_losses: false, weighting: normalized"));
  expect_error({"normalize_losses: true", "contradicts", "weighting: schedule"},
               flow_yaml("normalize_losses: true, weighting: schedule"));
  expect_error({"normalize_losses: false", "contradicts", "weighting: normalized"}, "",
               {kFlow + "normalize_losses=false", kFlow + "weighting=normalized"});
}

TEST(ConfigWeightingTest, TheCommandLinesWeightingWinsOverTheFilesNormalizeLossesAndTheOtherWayRound) {
  auto weighting = [](std::string const& file, std::string const& override) {
    auto const config = parse(flow_yaml(file), {kFlow + override});
    EXPECT_EQ(config.flow.normalize_losses, config.flow.weighting == "normalized");
    return config.flow.weighting;
  };
  EXPECT_EQ(weighting("normalize_losses: false", "weighting=normalized"), "normalized");
  EXPECT_EQ(weighting("normalize_losses: true", "weighting=fixed"), "fixed");
  EXPECT_EQ(weighting("weighting: normalized", "normalize_losses=false"), "fixed");
  EXPECT_EQ(weighting("weighting: schedule", "normalize_losses=false"), "schedule");
  EXPECT_EQ(weighting("weighting: schedule", "normalize_losses=true"), "normalized");
  EXPECT_EQ(weighting("normalize_losses: false, weighting: fixed", "weighting=normalized"), "normalized");
}

TEST(ConfigWeightingTest, TheEffectiveConfigsNormalizeLossesAgreesWithItsWeighting) {
  for (std::string const weighting : {"fixed", "normalized", "schedule"}) {
    auto const text = effective_yaml(parse("", {kFlow + "weighting=" + weighting}));
    EXPECT_NE(text.find(weighting == "normalized" ? "normalize_losses: true" : "normalize_losses: false"), text.npos);
    EXPECT_EQ(parse(text).flow.weighting, weighting);
  }
}

TEST(ConfigWeightingTest, ACheckpointOfAnEarlierBuildMayHoldNormalizeLossesAsGiven) {
  auto text = effective_yaml(parse("", {kFlow + "weighting=normalized"}));
  std::string const now = "normalize_losses: true";
  text.replace(text.find(now), now.size(), "normalize_losses: false");
  expect_error({"contradicts"}, text);
  EXPECT_EQ(parse_stored_config(text, "manifest.json", {}).flow.weighting, "normalized");
  EXPECT_EQ(parse_stored_config(text, "manifest.json", {kFlow + "weighting=fixed"}).flow.weighting, "fixed");
  EXPECT_EQ(parse_stored_config(text, "manifest.json", {kFlow + "normalize_losses=false"}).flow.weighting, "fixed");
  EXPECT_THROW(parse_stored_config(text, "m", {kFlow + "weighting=normalized", kFlow + "normalize_losses=false"}),
               ConfigError);
}

}  // namespace
}  // namespace duoflow::launch
