// Every key: its spelling, its round trip through the effective configuration, its row in the documentation.

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>

#include <gtest/gtest.h>

#include "tests/launch/config_cases.h"
#include "tests/launch/scratch_folder.h"

namespace duoflow::launch {
namespace {


// A valid value other than the default for every key that has one.
std::vector<std::pair<std::string, std::string>> other_values() {
  std::string const t = "model.transformer.", e = t + "editor.";
  return {{"objective", "\"reconstruction\""},
          {"model.image_tokenizer.image_size", "96"},
          {"model.image_tokenizer.patch_size", "16"},
          {"model.target_pose_tokenizer.image_size", "96"},
          {"model.env_tokenizer.image_size", "64"},
          {t + "d", "96"},
          {t + "d_head", "32"},
          {t + "encoder_n_layer", "2"},
          {t + "decoder_n_layer", "3"},
          {t + "n_latent_vectors", "17"},
          {t + "use_qk_norm", "false"},
          {t + "special_init", "false"},
          {t + "depth_init", "false"},
          {e + "kind", "\"noise_to_relit\""},
          {e + "n_layer", "5"},
          {e + "latent_scale", "0.136"},
          {e + "residual_scale", "0.05"},
          {e + "time_scale", "12.5"},
          {e + "velocity_head", "false"},
          {e + "light_in_adaln", "false"},
          {e + "normalize_latents", "false"},
          {kFlow + "velocity_loss_weight", "0.3"},
          {kFlow + "render_loss_weight", "1e-08"},
          {kFlow + "normalize_losses", "false"},
          {kFlow + "weighting", "\"normalized_each\""},
          {kFlow + "weight_clamp", "[0.01, 20]"},
          {kFlow + "weight_ema", "0.99"},
          {kFlow + "warmup_steps", "7"},
          {kFlow + "schedule_form", "\"linear\""},
          {kFlow + "velocity_start", "3"},
          {kFlow + "velocity_end", "0.25"},
          {kFlow + "render_start", "0.75"},
          {kFlow + "render_end", "1.5"},
          {kFlow + "velocity_only_steps", "17"},
          {kFlow + "alternating_period", "3"},
          {kFlow + "uncertainty_lr", "0.5"},
          {kFlow + "gradient_space", "\"parameters\""},
          {kFlow + "gradient_interval", "7"},
          {kFlow + "balance_hint_every", "0"},
          {kFlow + "num_ode_steps", "9"},
          {kFlow + "time_sampling", "\"logit_normal\""},
          {kFlow + "time_mean", "-0.5"},
          {kFlow + "time_deviation", "1.5"},
          {kFlow + "time_mode_scale", "1"},
          {kFlow + "discrete_times", "[0, 0.5]"},
          {kFlow + "time_shift", "3"},
          {kFlow + "ode_solver", "\"dopri5\""},
          {kFlow + "ode_rtol", "0.01"},
          {kFlow + "ode_atol", "0.001"},
          {"training.batch_size_per_gpu", "3"},
          {"training.global_batch_size", "21"},
          {"training.grad_accum_steps", "2"},
          {"training.lr", "0.1"},
          {"training.beta1", "0.8"},
          {"training.beta2", "0.999"},
          {"training.weight_decay", "0.1"},
          {"training.warmup", "0"},
          {"training.train_steps", "12345678901"},
          {"training.scheduler_type", "\"linear\""},
          {"training.grad_clip_norm", "0"},
          {"training.allowed_gradnorm_factor", "3.3333333333333335"},
          {"training.max_skips_in_a_row", "2"},
          {"training.num_input_views", "1"},
          {"training.num_target_views", "2"},
          {"training.target_has_input", "false"},
          {"training.l2_loss_weight", "0.5"},
          {"training.l1_loss_weight", "0.25"},
          {"training.gradient_loss_weight", "0.125"},
          {"training.lpips_loss_weight", "2"},
          {"training.lpips_network", "\"alex\""},
          {"training.lpips_weights", "\"a.safetensors\""},
          {"training.perceptual_loss_weight", "3"},
          {"training.perceptual_weights", "\"b.safetensors\""},
          {"training.perceptual_crop", "32"},
          {"training.use_amp", "true"},
          {"training.attention_backend", "\"flash\""},
          {"training.cuda_graph", "true"},
          {"training.grad_checkpoint_every", "1"},
          {"training.grad_checkpoint_part", "\"attention\""},
          {"training.render_view_chunk", "2"},
          {"training.print_every", "1"},
          {"training.checkpoint_every", "5"},
          {"training.vis_every", "6"},
          {"training.seed", "18446744073709551615"},
          {"training.keep_last", "1"},
          {"training.keep_every", "10"},
          {"training.checkpoint_async", "false"},
          {"training.checkpoint_busy", "\"drop\""},
          {"training.checkpoint_failure", "\"continue\""},
          {"training.stop_file", "\"stop\""},
          {"training.eval_every", "10"},
          {"training.eval_data", "\"held-out\""},
          {"training.eval_pairs", "5"},
          {"training.keep_best", "true"},
          {"training.init_from", "\"a \\\"b\\\" \\\\ c: # d\""},
          {"training.freeze_reconstructor_renderer", "false"},
          {"training.freeze", "[\"env_tokenizer.*\", \"*.norm1.weight\"]"},
          {"training.lr_scale", "[\"transformer_editor.0.*=0.1\"]"},
          {"training.ema_decay", "0.999"},
          {"training.ema_warmup", "false"},
          {"training.init_weights", "\"trained\""},
          {"training.collapse_guard", "0.3"},
          {"training.collapse_action", "\"stop\""},
          {"training.max_hours", ".inf"},
          {"data.threads", "2"},
          {"data.verify", "\"always\""},
          {"data.allow_other_producer", "true"},
          {"data.input_frames", "\"0,4,8-11\""},
          {"data.target_frames", "\"3\""},
          {"data.exclude_lights", "\"env_[ab]*\""},
          {"data.camera_frame", "\"all\""},
          {"data.light_encoding", "\"cosmos\""},
          {"data.shuffle", "\"block\""},
          {"data.shuffle_block_mib", "64"},
          {"data.shuffle_window_mib", "4096.5"},
          {"data.skip", "[\"3-9\", \"12\"]"},
          {"data.log_samples", "true"},
          {"latents", "\"online\""},
          {kFlow + "statistics", "\"lagged\""},
          {"dist.zero", "1"},
          {"dist.gradient_dtype", "\"bf16\""},
          {"dist.bucket_mib", "0.5"},
          {"dist.first_bucket_mib", "0.25"},
          {"dist.timeout_s", "1.5"},
          {"dist.step_timeout_s", "2.5"},
          {"dist.threads", "3"},
          {"dist.device", "\"cpu\""}};
}

// Keys whose one value (with the other values above) is the default; model.class_name, which changes others, has tests
// of its own.
std::set<std::string> keys_of_one_value() {
  return {"model.transformer.editor.init_scale",
          "model.class_name",
          "training.amp_dtype",
          kFlow + "path",
          kFlow + "path_sigma",         // not beside the kind of editor above; BridgesHaveAWidth
          "training.perceptual_min_t",  // these three: without effect, and noted, beside the objective above
          "training.light_dropout",
          "training.layer_lr_decay",
          "model.transformer.editor.init",
          "model.transformer.editor.init_checkpoint",  // EditorsStartFromWhatThereIs
          "dist.reproducible",
          "dist.virtual_shards"};
}

TEST(ConfigKeysTest, EveryKeyRoundTripsThroughTheEffectiveConfig) {
  std::vector<std::string> overrides;
  auto untested = keys_of_one_value();
  for (auto const& [key, value] : other_values()) overrides.push_back(key + "=" + value), untested.insert(key);
  auto const config = parse("", overrides);
  auto const values = values_of(config), defaults = values_of(Config());
  for (auto const& [key, value] : other_values()) {
    EXPECT_EQ(values.at(key), value) << key;
    EXPECT_NE(values.at(key), defaults.at(key)) << key << " is at its default";
  }
  for (auto const& [key, value] : values) EXPECT_TRUE(untested.contains(key)) << key << " is in neither list";
  EXPECT_EQ(values.size(), untested.size());
  auto const again = parse(effective_yaml(config));
  EXPECT_EQ(values_of(again), values);
  EXPECT_EQ(effective_yaml(again), effective_yaml(config));
  EXPECT_EQ(again.notes, config.notes);  // of options of other weightings
}

// With DUOFLOW_UPDATE_DOCS=1 the page is written anew.
TEST(ConfigKeysTest, TheDocumentedTableIsTheTableOfKeys) {
  std::filesystem::path const page = DUOFLOW_SOURCE_DIR "/docs/config.md";
  if (std::getenv("DUOFLOW_UPDATE_DOCS") != nullptr) {
    std::filesystem::create_directories(page.parent_path());
    std::ofstream(page) << config_table_markdown();
  }
  EXPECT_EQ(file_text(page), config_table_markdown())
      << "docs/config.md is not up to date, run this test with DUOFLOW_UPDATE_DOCS=1";
}

}  // namespace
}  // namespace duoflow::launch
