#include "launch/config.h"

#include <algorithm>
#include <filesystem>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/launch/config_cases.h"
#include "tests/launch/scratch_folder.h"

namespace duoflow::launch {
namespace {

TEST(ConfigTest, WhatAnotherKeyDecidesIsNoted) {
  for (auto const& options : {std::vector<std::string>{"training.global_batch_size=16", "training.grad_accum_steps=4"},
                              std::vector<std::string>{"training.collapse_action=stop"}})
    EXPECT_EQ(parse("", options).notes.size(), 1u) << options.back();
  EXPECT_TRUE(parse("", {"training.grad_accum_steps=4"}).notes.empty());
  EXPECT_TRUE(
      parse("", {"training.collapse_action=stop", "latents=online", "training.freeze_reconstructor_renderer=false"})
          .notes.empty());
}

TEST(ConfigTest, BridgesHaveAWidth) {
  auto const config = parse("", {kFlow + "path=bridge_sqrt", kFlow + "path_sigma=0.005"});
  EXPECT_EQ(config.flow.path, "bridge_sqrt");
  EXPECT_EQ(config.flow.path_sigma, 0.005);
  EXPECT_EQ(values_of(parse(effective_yaml(config))), values_of(config));
}

TEST(ConfigTest, OneTextIsAListAndAnEmptyOneIsNone) {
  EXPECT_EQ(parse("", {"training.freeze=env_tokenizer.*"}).training.freeze,
            (std::vector<std::string>{"env_tokenizer.*"}));
  EXPECT_EQ(parse("training: {lr_scale: [\"a.*=2\", \"*b=0.5\"]}").training.lr_scale,
            (std::vector<std::string>{"a.*=2", "*b=0.5"}));
  EXPECT_TRUE(parse("training: {freeze: [a]}", {"training.freeze="}).training.freeze.empty());
  expect_error({"training.freeze", "list of string"}, "training: {freeze: [[a]]}");
}

TEST(ConfigTest, EditorsStartFromWhatThereIs) {
  std::string const init = "model.transformer.editor.init=", checkpoint = "model.transformer.editor.init_checkpoint=";
  std::string const from = "training.init_from=w.safetensors";
  auto const config = parse("", {init + "one_step", checkpoint + "e.safetensors"});
  EXPECT_EQ(values_of(parse(effective_yaml(config))), values_of(config));
  EXPECT_EQ(parse("", {init + "decoder", from}).editor_init, "decoder");
  expect_error({"init_checkpoint", "one_step"}, "", {init + "one_step"});
  expect_error({"init_checkpoint", "empty"}, "", {checkpoint + "e.safetensors"});
  expect_error({"init = decoder", "training.init_from", "random"}, "", {init + "decoder"});
  expect_error({"init = decoder", "reconstruction"}, "", {init + "decoder", from, "objective=reconstruction"});
  expect_error({"init = one_step", "training.init_from"}, "",
               {init + "one_step", checkpoint + "e.safetensors", "model.transformer.editor.kind=one_step",
                "model.transformer.editor.flow_matching.num_ode_steps=1"});
}

TEST(ConfigTest, WhatContradictsAnotherKeyIsSaid) {
  expect_error({"training.init_weights = ema", "training.init_from"}, "", {"training.init_weights=ema"});
  expect_error({"training.grad_checkpoint_every = 2", "grad_checkpoint_part"}, "",
               {"training.grad_checkpoint_every=2", "training.grad_checkpoint_part=mlp"});
  EXPECT_EQ(parse("", {"training.ema_warmup=false"}).notes.size(), 1u);
  EXPECT_EQ(parse("", {"training.grad_checkpoint_part=mlp"}).notes.size(), 1u);
  for (auto const* setting : {"training.light_dropout=0.1", "training.layer_lr_decay=0.9"}) {
    EXPECT_EQ(parse("", {setting, "objective=reconstruction"}).notes.size(), 1u) << setting;
    auto const joint = parse("", {setting});
    EXPECT_TRUE(joint.notes.empty()) << setting;
    EXPECT_EQ(values_of(parse(effective_yaml(joint))), values_of(joint)) << setting;
  }
}

TEST(ConfigTest, AReconstructorThatMovesIsNotMeasuredOnStoredLatents) {
  std::vector<std::string> const measured{"latents=online", "training.freeze_reconstructor_renderer=false", "training.eval_every=2",
                                          "training.eval_data=pairs"};
  expect_error({"training.eval_every", "reconstructor that trains"}, "", measured);
  auto accepted = measured;
  accepted.push_back("data.allow_other_producer=true");
  EXPECT_EQ(parse("", accepted).training.eval_every, 2);
  accepted.back() = "training.freeze_reconstructor_renderer=true";
  EXPECT_EQ(parse("", accepted).training.eval_every, 2);
}

TEST(ConfigTest, AScheduleOfNothingIsAnError) {
  std::vector<std::string> choices{kFlow + "weighting=schedule"};
  for (auto const* key : {"velocity_start", "velocity_end", "render_start", "render_end"}) choices.push_back(kFlow + key + "=0");
  expect_error({"all four weights of the weighting schedule are 0"}, "", choices);
}

TEST(ConfigTest, AGateOfTimesNeedsTimesBehindIt) {
  std::string const network = "training.lpips_loss_weight=1", gate = "training.perceptual_min_t=0.3";
  EXPECT_EQ(parse("", {network, gate}).training.perceptual_min_t, 0.3);
  auto const timeless = parse("", {network, gate, "model.transformer.editor.kind=one_step"});
  EXPECT_EQ(timeless.training.perceptual_min_t, 0);
  expect_note(timeless, "training.perceptual_min_t has no effect (the editor knows no time)");
  auto const times = kFlow + "time_sampling=discrete";
  expect_error({"perceptual_min_t = 0.3", "discrete_times"}, "", {network, gate, times, kFlow + "discrete_times=[0, 0.2]"});
  EXPECT_EQ(parse("", {network, gate, times, kFlow + "discrete_times=[0, 0.3]"}).training.perceptual_min_t, 0.3);
}

TEST(ConfigTest, OptionsOfWhatIsNotChosenAreNoted) {
  std::string const once = "model.transformer.editor.kind=one_step";
  expect_note(parse("", {once, kFlow + "time_shift=3"}), "time_shift has no effect (the editor knows no time)");
  expect_note(parse("", {kFlow + "ode_rtol=0.1"}), "ode_rtol has no effect (ode_solver is not dopri5)");
  EXPECT_TRUE(parse("", {kFlow + "ode_rtol=0.1", kFlow + "ode_solver=dopri5"}).notes.empty());
  expect_note(parse("", {"training.grad_clip_norm=0", "training.allowed_gradnorm_factor=3"}), "allowed_gradnorm_factor has no effect");
  expect_note(parse("", {"training.lpips_network=alex"}), "lpips_network has no effect");
}

TEST(ConfigTest, DefaultsRoundTripAndNeedNoFile) {
  auto const config = parse("");
  EXPECT_EQ(values_of(config), values_of(Config()));
  EXPECT_EQ(values_of(parse(effective_yaml(config))), values_of(config));
  EXPECT_TRUE(config.written.empty());
}

TEST(ConfigTest, OverridesWinOverTheFileAndTheLastOneWins) {
  auto const config = parse("training:\n  lr: 1.0\n  seed: 5\n", {"training.lr=2.0", "training.lr=3.0"});
  EXPECT_EQ(config.training.lr, 3.0);
  EXPECT_EQ(config.training.seed, 5u);
}

TEST(ConfigTest, AnEmptyOverrideEmptiesAStringAndNothingElse) {
  EXPECT_EQ(parse("data: {exclude_lights: \"env_0*\"}", {"data.exclude_lights="}).data.exclude_lights, "");
  expect_error({"training.lr", "float"}, "", {"training.lr="});
  expect_error({"training.lr", "float"}, "", {"training.lr=null"});
}

TEST(ConfigTest, AKeyWithNothingInAFileKeepsTheDefault) {
  EXPECT_EQ(parse("training:\n  lr:\n  warmup: 4\n").training.lr, TrainingConfig().lr);
}

TEST(ConfigTest, DottedAndNestedSpellingsAreOneKey) {
  EXPECT_EQ(parse("training.lr: 0.25\n").training.lr, 0.25);
  EXPECT_EQ(parse("model: {transformer: {d: 128, d_head: 64}}").model.d, 128);
}

// A few lines can repeat a section a million times, or put it into itself.
TEST(ConfigTest, WhatNoConfigurationIsEndsInAnError) {
  std::string repeated = "a0: &a0 {x: 1, y: 2}\n";
  for (int i = 1; i < 30; ++i) repeated += fmt::format("a{}: &a{} {{x: *a{}, y: *a{}}}\n", i, i, i - 1, i - 1);
  expect_error({"F.yaml", "more than 10000 values"}, repeated);
  expect_error({"F.yaml", "deeper than 32 levels"}, "a: &a {x: *a}\n");
  expect_error({"F.yaml", "1048577 bytes"}, std::string((1 << 20) + 1, '#'));
  expect_error({"F.yaml"}, std::string(100'000, '['));
  expect_error({"unknown key"}, std::string(1'000, 'k') + ": 1\n");
}

TEST(ConfigTest, AnUnknownKeyNamesTheNearest) {
  expect_error({"F.yaml:2", "training.warmpu", "did you mean training.warmup?"}, "training:\n  warmpu: 3\n");
  expect_error({"command line", "did you mean data.threads?"}, "", {"data.thread=3"});
  expect_error({"did you mean training.lr?"}, "model: {lr: 1}");  // the right name in the wrong section
  expect_error({"did you mean ", "docs/config.md"}, "something: {else: {entirely: 1}}");
}

TEST(ConfigTest, AWrongTypeNamesKeyValueAndType) {
  expect_error({"F.yaml:2", "training.warmup = 1.5", "int"}, "training:\n  warmup: 1.5\n");
  expect_error({"training.lr = fast", "float"}, "training: {lr: fast}");
  expect_error({"training.use_amp = 3", "bool"}, "training: {use_amp: 3}");
  expect_error({"training.seed = -1", "int"}, "training: {seed: -1}");
  expect_error({"training.lr", "float"}, "training: {lr: [1, 2]}");
  expect_error({"weight_clamp", "list of float"}, "", {kFlow + "weight_clamp=[a]"});
}

TEST(ConfigTest, TextThatIsNoMappingOrNoYamlIsAnError) {
  expect_error({"F.yaml", "mapping"}, "- 1\n- 2\n");
  expect_error({"F.yaml", "YAML"}, "training: {lr: 1\n");
  expect_error({"key=value"}, "", {"training.lr"});
  expect_error({"key=value"}, "", {"=3"});
}

TEST(ConfigTest, ValuesOutsideTheirRangeAreErrors) {
  std::vector<std::string> const bad = {"training.perceptual_loss_weight=-0.5",
                                        "training.lr=.inf",
                                        "training.weight_decay=.inf",
                                        "dist.timeout_s=.inf",
                                        "dist.step_timeout_s=.inf",
                                        "training.ema_decay=1",
                                        "training.ema_decay=-0.1",
                                        "training.init_weights=best",
                                        "training.light_dropout=1",
                                        "training.light_dropout=-0.1",
                                        "training.layer_lr_decay=0",
                                        "training.layer_lr_decay=1.5",
                                        "training.lr_scale=[a]",
                                        "training.freeze=[\"\"]",
                                        "training.collapse_guard=1",
                                        "training.collapse_action=panic",
                                        "training.grad_checkpoint_every=-1",
                                        "training.grad_checkpoint_part=norm",
                                        "training.render_view_chunk=-1",
                                        "model.transformer.editor.init=random",
                                        "training.lpips_loss_weight=.nan",
                                        "training.l1_loss_weight=-1",
                                        "training.gradient_loss_weight=.inf",
                                        "training.lpips_network=squeeze",
                                        "training.perceptual_min_t=1",
                                        "training.perceptual_min_t=-0.1",
                                        "training.perceptual_crop=-1",
                                        "training.perceptual_crop=257",
                                        "training.amp_dtype=fp16",
                                        "training.lr=-1",
                                        "training.lr=.nan",
                                        "training.beta1=1",
                                        "training.batch_size_per_gpu=0",
                                        "training.grad_accum_steps=0",
                                        "training.print_every=0",
                                        "training.scheduler_type=step",
                                        "model.transformer.d=100",
                                        "model.image_tokenizer.image_size=100",
                                        "model.env_tokenizer.image_size=12",
                                        "model.target_pose_tokenizer.image_size=64",
                                        "model.transformer.n_latent_vectors=0",
                                        kFlow + "weighting=learned",
                                        kFlow + "weight_ema=1",
                                        kFlow + "velocity_only_steps=-1",
                                        kFlow + "alternating_period=0",
                                        kFlow + "uncertainty_lr=0",
                                        kFlow + "gradient_space=latents",
                                        kFlow + "gradient_interval=0",
                                        kFlow + "balance_hint_every=-1",
                                        kFlow + "weight_clamp=[1,2,3]",
                                        kFlow + "ode_solver=rk5",
                                        kFlow + "ode_rtol=0",
                                        kFlow + "path=bridge",
                                        kFlow + "path_sigma=0.1",
                                        kFlow + "path=bridge_sqrt",
                                        kFlow + "time_sampling=discrete",
                                        kFlow + "time_shift=-1",
                                        kFlow + "time_sampling=u",
                                        kFlow + "statistics=next",
                                        "objective=both",
                                        "latents=sometimes",
                                        "dist.virtual_shards=-1",
                                        "dist.zero=2",
                                        "dist.gradient_dtype=f16",
                                        "dist.device=tpu",
                                        "dist.timeout_s=0",
                                        "dist.step_timeout_s=-1",
                                        "data.verify=maybe",
                                        "data.camera_frame=targets",
                                        "data.light_encoding=hdr",
                                        "data.threads=0",
                                        "data.shuffle=blocks",
                                        "data.shuffle_block_mib=0",
                                        "data.shuffle_window_mib=255",
                                        "data.skip=[9-3]",
                                        "data.skip=-3",
                                        "data.skip=[3-5, 1-]",
                                        "data.skip=[3.5]",
                                        "data.skip=0-9007199254740992",
                                        "data.skip=[99999999999999999999]",
                                        "data.input_frames=\"1,x\""};
  for (auto const& override : bad) {
    auto const key = override.substr(0, override.find('='));
    EXPECT_NE(error_of("", {override}).find(key), std::string::npos) << override << ": " << error_of("", {override});
  }
}

TEST(ConfigTest, ImageTermsMustFitTogether) {
  std::string const crop = "training.perceptual_crop=", lpips = "training.lpips_loss_weight=1";
  expect_error({"training.perceptual_crop = 15", "16 pixels for VGG"}, "", {crop + "15", lpips});
  expect_error({"training.perceptual_crop = 30", "31 for AlexNet"}, "",
               {crop + "30", lpips, "training.lpips_network=alex"});
  expect_error({"model.image_tokenizer.image_size = 8"}, "", {lpips, "model.image_tokenizer.image_size=8"});
  EXPECT_EQ(parse("", {crop + "16", lpips}).training.perceptual_crop, 16);
  expect_error({"training.l2_loss_weight = 0", "reconstruction has no other loss"}, "",
               {"objective=reconstruction", "training.l2_loss_weight=0"});
  EXPECT_NO_THROW(parse("", {"objective=reconstruction", "training.l2_loss_weight=0", "training.l1_loss_weight=1"}));
  EXPECT_NO_THROW(parse("", {"training.l2_loss_weight=0", lpips, kFlow + "weighting=normalized"}));
  expect_error({"weighting = normalized", "every other image term 0"}, "",
               {"training.l2_loss_weight=0", kFlow + "weighting=normalized"});
}

TEST(ConfigTest, OptionsOfANetworkThatNoLossUsesAreNoted) {
  for (std::string const option :
       {"perceptual_crop=32", "perceptual_min_t=0.5", "perceptual_weights=a", "lpips_weights=a"}) {
    auto const notes = parse("", {"training." + option}).notes;
    ASSERT_EQ(notes.size(), 1u) << option;
    EXPECT_NE(notes[0].find("has no effect"), std::string::npos) << notes[0];
  }
  EXPECT_TRUE(parse("", {"training.perceptual_min_t=0.5", "training.lpips_loss_weight=1"}).notes.empty());
}

TEST(ConfigTest, FreezingIsHonouredInBothPlaces) {
  for (std::string const value : {"true", "false"}) {
    auto const expected = value == "true";
    EXPECT_EQ(parse("training: {freeze_reconstructor_renderer: " + value + "}").training.freeze_reconstructor_renderer,
              expected);
    EXPECT_EQ(parse("model: {transformer: {freeze_reconstructor_renderer: " + value + "}}")
                  .training.freeze_reconstructor_renderer,
              expected);
  }
}

TEST(ConfigTest, FlowLossWeightIsTheVelocityLossWeight) {
  EXPECT_EQ(parse("training: {flow_loss_weight: 0.125}").flow.velocity_loss_weight, 0.125);
  EXPECT_EQ(parse("", {kFlow + "flow_loss_weight=0.375"}).flow.velocity_loss_weight, 0.375);
  EXPECT_EQ(parse("training: {LVSM_checkpoint_dir: W.safetensors}").training.init_from, "W.safetensors");
}

TEST(ConfigTest, TwoSpellingsWithDifferentValuesContradict) {
  std::string const both =
      "model: {transformer: {freeze_reconstructor_renderer: true}}\ntraining: {freeze_reconstructor_renderer: ";
  expect_error(
      {"training.freeze_reconstructor_renderer = false", "model.transformer.freeze_reconstructor_renderer = true"},
      both + "false}\n");
  EXPECT_TRUE(parse(both + "true}\n").training.freeze_reconstructor_renderer);
  expect_error(
      {"contradicts"},
      "training: {flow_loss_weight: 1}\nmodel: {transformer: {editor: {flow_matching: {velocity_loss_weight: 2}}}}");
}

TEST(ConfigTest, TwoSpellingsOnTheCommandLineMustAgreeAndOneSpellingTwiceMayNot) {
  std::string const key = kFlow + "velocity_loss_weight=", alias = "training.flow_loss_weight=";
  expect_error({"command line", "flow_loss_weight = 1", "velocity_loss_weight = 2", "keep one"}, "",
               {alias + "1", key + "2"});
  expect_error({"contradicts"}, "", {key + "2", alias + "1"});
  expect_error({"contradicts"}, "", {key + "1", alias + "1", key + "2"});
  EXPECT_EQ(parse("", {alias + "1.5", key + "1.5"}).flow.velocity_loss_weight, 1.5);
  EXPECT_EQ(parse("", {key + "1", alias + "2", key + "2"}).flow.velocity_loss_weight, 2);
  EXPECT_EQ(parse("", {alias + "1", alias + "2"}).flow.velocity_loss_weight, 2);
}

TEST(ConfigTest, AKeyWrittenDottedAndNestedInOneFileIsThereTwice) {
  expect_error({"F.yaml:2", "training.lr is there twice"}, "training.lr: 0.25\ntraining: {lr: 0.5}\n");
}

TEST(ConfigTest, AnOverrideInTheOtherSpellingWins) {
  EXPECT_EQ(parse("training: {flow_loss_weight: 1}", {kFlow + "velocity_loss_weight=2"}).flow.velocity_loss_weight, 2);
}

TEST(ConfigTest, NoKeyIsBothUsedAndUnused) {
  auto const values = values_of(Config());
  for (auto const& [key, reason] : unused_keys()) {
    EXPECT_FALSE(values.contains(key)) << key;
    EXPECT_FALSE(reason.empty()) << key;
  }
}

TEST(ConfigTest, SkippedSamplesAreNumbersAndRanges) {
  auto const ranges = skipped_positions(parse("data: {skip: [7-9, \"3\", 8-12]}")).ranges();
  ASSERT_EQ(ranges.size(), 2u);
  EXPECT_EQ(ranges[0].first, 3u);
  EXPECT_EQ(ranges[0].last, 3u);
  EXPECT_EQ(ranges[1].first, 7u);
  EXPECT_EQ(ranges[1].last, 12u);
  EXPECT_EQ(skipped_positions(parse("", {"data.skip=100-199"})).ranges().size(), 1u);
  EXPECT_TRUE(skipped_positions(parse("data: {skip: []}")).ranges().empty());
  expect_error({"data.skip = [5-6, 9-7]", "9-7", "backwards"}, "data: {skip: [5-6, 9-7]}");
  expect_error({"data.skip = [5-six]", "\"six\" is not a sample number", "[9600-9999, 12000-12399]"},
               "data: {skip: [5-six]}");
}

TEST(ConfigTest, FramesAreNumbersAndRanges) {
  EXPECT_EQ(parse_frames("", "k"), std::vector<std::int64_t>());
  EXPECT_EQ(parse_frames("7", "k"), std::vector<std::int64_t>{7});
  EXPECT_EQ(parse_frames("0,4,8-11", "k"), (std::vector<std::int64_t>{0, 4, 8, 9, 10, 11}));
  EXPECT_EQ(parse_frames("3-3", "k"), std::vector<std::int64_t>{3});
  for (std::string const text : {"a", "1,,2", "-3", "5-2", "1-", "1.5", "2 ", ",", "0-9999999"}) {
    try {
      parse_frames(text, "data.input_frames");
      ADD_FAILURE() << text << " was accepted";
    } catch (ConfigError const& error) {
      EXPECT_NE(std::string(error.what()).find("data.input_frames"), std::string::npos) << error.what();
    }
  }
}

TEST(ConfigTest, WeightClampTakesOneOrTwoNumbers) {
  auto const one = weighting_options(parse("", {kFlow + "weighting=normalized", kFlow + "weight_clamp=10"})),
             two = weighting_options(parse("", {kFlow + "weighting=normalized", kFlow + "weight_clamp=[0.5, 10]"}));
  EXPECT_EQ(one.clamp_min, 0);
  EXPECT_EQ(one.clamp_max, 10);
  EXPECT_EQ(two.clamp_min, 0.5);
  EXPECT_EQ(two.clamp_max, 10);
  EXPECT_EQ(weighting_options(parse("", {kFlow + "weighting=normalized"})).clamp_max, 0);
}

TEST(ConfigTest, AFileThatIsNotThereIsNamed) {
  try {
    load_config("/nowhere/config.yaml", {});
    ADD_FAILURE();
  } catch (ConfigError const& error) {
    EXPECT_NE(std::string(error.what()).find("/nowhere/config.yaml"), std::string::npos);
  }
}

TEST(ConfigTest, TheCommittedConfigsLoadWithoutNotes) {
  int files = 0;
  for (auto const& entry : std::filesystem::directory_iterator(DUOFLOW_SOURCE_DIR "/configs")) {
    if (entry.path().extension() != ".yaml") continue;
    ++files;
    EXPECT_TRUE(load_config(entry.path().string(), {}).notes.empty()) << entry.path();
  }
  EXPECT_GT(files, 0);
}

}  // namespace
}  // namespace duoflow::launch
