#include "launch/config_validation.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "launch/checkpoint_weights.h"
#include "launch/parameter_rules.h"
#include "model/flow/path.h"

namespace duoflow::launch {

void require_one_of(char const* key, std::string const& value, std::vector<std::string> const& valid,
                    char const* note) {
  if (std::find(valid.begin(), valid.end(), value) == valid.end())
    throw ConfigError(
        fmt::format("{} = {} (not one of: {}){}; choose one of them", key, value, fmt::join(valid, ", "), note));
}

std::pair<double, double> clamp_of(FlowMatchingConfig const& f) {
  if (f.weight_clamp.empty()) return {0, 0};
  if (f.weight_clamp.size() == 1) return {0, f.weight_clamp[0]};
  return {f.weight_clamp[0], f.weight_clamp[1]};
}

namespace {

template <class T>
void require(bool holds, char const* key, T const& value, char const* rule) {
  if (!holds)
    throw ConfigError(
        fmt::format("{} = {} (violated: {}); change it in the config or on the command line", key, value, rule));
}

constexpr double kLongestTimeout_s = 1e7;  // four months, in milliseconds still a number of 64 bits

void validate_model(Config const& c) {
  auto const& m = c.model;
  require(m.d > 0 && m.d_head > 0 && m.d % m.d_head == 0, "model.transformer.d", m.d, "a positive multiple of d_head");
  require(m.d % 2 == 0, "model.transformer.d", m.d, "even (time embedding)");
  require(m.patch_size > 0 && m.image_size > 0 && m.image_size % m.patch_size == 0, "model.image_tokenizer.image_size",
          m.image_size, "a positive multiple of patch_size");
  require(m.env_height > 0 && m.env_height % m.patch_size == 0, "model.env_tokenizer.image_size", m.env_height,
          "a positive multiple of patch_size");
  require(m.latent_scale > 0, "model.transformer.editor.latent_scale", m.latent_scale, "> 0");
  require(m.residual_scale > 0, "model.transformer.editor.residual_scale", m.residual_scale, "> 0");
  require(m.editor_init_scale >= 0, "model.transformer.editor.init_scale", m.editor_init_scale, ">= 0");
  require(model::knows_time(m.editor) || c.flow.num_ode_steps == 1,
          "model.transformer.editor.flow_matching.num_ode_steps", c.flow.num_ode_steps,
          "1 with an editor that knows no time: it edits at once");
  require(model::knows_time(m.editor) || c.flow.ode_solver == "euler", "model.transformer.editor.flow_matching.ode_solver",
          c.flow.ode_solver, "euler with an editor that knows no time: one step of it is the edit");
  require(c.target_image_size == 0 || c.target_image_size == m.image_size, "model.target_pose_tokenizer.image_size",
          c.target_image_size, "equal to image_tokenizer.image_size");
  require(m.n_latent_vectors > 0, "model.transformer.n_latent_vectors", m.n_latent_vectors, "> 0");
  require(m.encoder_n_layer > 0 && m.decoder_n_layer > 0 && m.editor_n_layer > 0, "model.transformer.*_n_layer",
          m.editor_n_layer, "> 0");
}

void validate_image_terms(Config const& c) {
  auto const& t = c.training;
  for (auto const& [key, weight] :
       {std::pair{"l2", t.l2_loss_weight}, std::pair{"l1", t.l1_loss_weight},
        std::pair{"gradient", t.gradient_loss_weight}, std::pair{"lpips", t.lpips_loss_weight},
        std::pair{"perceptual", t.perceptual_loss_weight}})
    require(weight >= 0 && std::isfinite(weight), fmt::format("training.{}_loss_weight", key).c_str(), weight, ">= 0");
  require(c.objective == "joint" || has_image_term(t), "training.l2_loss_weight", t.l2_loss_weight,
          "> 0 for one of the image terms (l2, l1, gradient, lpips, perceptual): reconstruction has no other loss");
  require_one_of("training.attention_backend", t.attention_backend, {"measured", "library", "cudnn", "flash", "efficient"});
  require_one_of("training.lpips_network", t.lpips_network, {"vgg", "alex"});
  require(t.perceptual_min_t >= 0 && t.perceptual_min_t < 1, "training.perceptual_min_t", t.perceptual_min_t,
          "in [0, 1): 1 would leave no sample");
  auto const smallest = t.lpips_loss_weight > 0 && t.lpips_network == "alex" ? 31 : 16;  // what the networks need
  auto const side = t.perceptual_crop > 0 ? t.perceptual_crop : c.model.image_size;
  require(t.perceptual_crop >= 0 && t.perceptual_crop <= c.model.image_size, "training.perceptual_crop",
          t.perceptual_crop, "at most model.image_tokenizer.image_size; 0: whole pictures");
  if (t.lpips_loss_weight + t.perceptual_loss_weight > 0)
    require(side >= smallest, t.perceptual_crop > 0 ? "training.perceptual_crop" : "model.image_tokenizer.image_size",
            side,
            "at least 16 pixels for VGG, 31 for AlexNet, with a training.lpips_loss_weight or perceptual_loss_weight");
}

void validate_memory(TrainingConfig const& t) {
  require(t.grad_checkpoint_every >= 0, "training.grad_checkpoint_every", t.grad_checkpoint_every, ">= 0");
  require(t.grad_checkpoint_part == "block" || t.grad_checkpoint_every <= 1, "training.grad_checkpoint_every",
          t.grad_checkpoint_every, "1, or 0, with a training.grad_checkpoint_part: it is taken of every block alike");
  require(t.render_view_chunk >= 0, "training.render_view_chunk", t.render_view_chunk, ">= 0; 0: all views at once");
}

void validate_average(TrainingConfig const& t) {
  require(t.ema_decay >= 0 && t.ema_decay < 1, "training.ema_decay", t.ema_decay, "in [0, 1); 0: no average");
  auto const choice = weights_choice(t.init_weights, "training.init_weights");
  require(choice == WeightsChoice::automatic || !t.init_from.empty(), "training.init_weights", t.init_weights,
          "auto without a training.init_from to choose from");
}

void validate_rates(TrainingConfig const& t) {
  require(t.layer_lr_decay > 0 && t.layer_lr_decay <= 1, "training.layer_lr_decay", t.layer_lr_decay, "in (0, 1]");
  for (auto const& rule : t.lr_scale) parse_rate_rule(rule);
  for (auto const& pattern : t.freeze) require(!pattern.empty(), "training.freeze", "\"\"", "a glob on parameter keys");
}

void validate_light(TrainingConfig const& t) {
  require(t.light_dropout >= 0 && t.light_dropout < 1, "training.light_dropout", t.light_dropout,
          "in [0, 1): at 1 no light would ever be seen");
}

void validate_guard(TrainingConfig const& t) {
  require(t.collapse_guard >= 0 && t.collapse_guard < 1, "training.collapse_guard", t.collapse_guard, "in [0, 1)");
  require_one_of("training.collapse_action", t.collapse_action, {"warn", "stop"});
}

void validate_start(Config const& c) {
  require_one_of("model.transformer.editor.init", c.editor_init, {"zero", "one_step", "decoder"});
  std::string const key = "model.transformer.editor.init_checkpoint";
  require((c.editor_init == "one_step") == !c.editor_init_checkpoint.empty(), key.c_str(),
          "\"" + c.editor_init_checkpoint + "\"",
          c.editor_init == "one_step" ? "the one-step editor that model.transformer.editor.init: one_step starts from"
                                      : "empty unless model.transformer.editor.init is one_step");
  require(c.editor_init == "zero" || c.objective == "joint", "model.transformer.editor.init", c.editor_init,
          "zero with objective reconstruction, which trains no editor");
  require(c.editor_init != "one_step" || model::knows_time(c.model.editor), "model.transformer.editor.init",
          c.editor_init, "zero or decoder for an editor that is one-step itself: training.init_from starts it");
  require(c.editor_init != "decoder" || !c.training.init_from.empty(), "model.transformer.editor.init", c.editor_init,
          "zero or one_step without a training.init_from: the renderer's blocks would be random");
}

void validate_training(Config const& c) {
  auto const& t = c.training;
  require(t.batch_size_per_gpu > 0, "training.batch_size_per_gpu", t.batch_size_per_gpu, "> 0");
  require(t.grad_accum_steps > 0, "training.grad_accum_steps", t.grad_accum_steps, "> 0");
  require(t.global_batch_size >= 0, "training.global_batch_size", t.global_batch_size, ">= 0");
  require(t.lr >= 0 && std::isfinite(t.lr), "training.lr", t.lr, "a finite number >= 0");
  require(t.beta1 >= 0 && t.beta1 < 1, "training.beta1", t.beta1, "in [0, 1)");
  require(t.beta2 >= 0 && t.beta2 < 1, "training.beta2", t.beta2, "in [0, 1)");
  require(t.train_steps >= 0, "training.train_steps", t.train_steps, ">= 0");
  require(t.warmup >= 0, "training.warmup", t.warmup, ">= 0");
  require(t.num_input_views > 0, "training.num_input_views", t.num_input_views, "> 0");
  require(t.grad_clip_norm >= 0, "training.grad_clip_norm", t.grad_clip_norm, ">= 0");
  require(t.num_target_views > 0, "training.num_target_views", t.num_target_views, "> 0");
  require(t.print_every > 0, "training.print_every", t.print_every, "> 0");
  require(t.checkpoint_every > 0, "training.checkpoint_every", t.checkpoint_every, "> 0");
  require(t.keep_last > 0, "training.keep_last", t.keep_last, "> 0");
  require_one_of("training.checkpoint_busy", t.checkpoint_busy, {"wait", "drop"});
  require_one_of("training.checkpoint_failure", t.checkpoint_failure, {"stop", "continue"});
  require(t.eval_every >= 0, "training.eval_every", t.eval_every, ">= 0");
  require(t.eval_pairs > 0, "training.eval_pairs", t.eval_pairs, "> 0");
  if (t.eval_every > 0 && t.eval_data.empty())
    throw ConfigError("training.eval_every is set and training.eval_data is not (no pairs to measure on); give a folder of pair shards");
  bool const encoder_moves = c.objective == "joint" && c.latents == "online" && !t.freeze_reconstructor_renderer;
  if (t.eval_every > 0 && encoder_moves && !c.data.allow_other_producer)
    throw ConfigError(
        "training.eval_every with a reconstructor that trains (training.eval_data holds latents of the reconstructor as it was: "
        "scores would be of other latents than the model's, and a resume would refuse them); set "
        "training.freeze_reconstructor_renderer, leave training.eval_every at 0 and evaluate checkpoints, or accept it with "
        "data.allow_other_producer");
  if (t.keep_best && (t.eval_every == 0 || t.eval_every % t.checkpoint_every != 0))
    throw ConfigError(fmt::format("training.keep_best needs measurements at steps that have a checkpoint, and training.eval_every = {} is "
                                  "no multiple of training.checkpoint_every = {}; change one of them",
                                  t.eval_every, t.checkpoint_every));
  require(t.keep_every >= 0, "training.keep_every", t.keep_every, ">= 0");
  require(t.weight_decay >= 0 && std::isfinite(t.weight_decay), "training.weight_decay", t.weight_decay, "a finite number >= 0");
  require(t.allowed_gradnorm_factor >= 0, "training.allowed_gradnorm_factor", t.allowed_gradnorm_factor,
          ">= 0; 0: any norm");
  require(t.max_skips_in_a_row > 0, "training.max_skips_in_a_row", t.max_skips_in_a_row, "> 0");
  require(t.max_hours >= 0, "training.max_hours", t.max_hours, ">= 0");
  require(t.vis_every >= 0, "training.vis_every", t.vis_every, ">= 0");
  require_one_of("training.scheduler_type", t.scheduler_type, {"cosine", "linear", "constant"});
  require_one_of("training.amp_dtype", t.amp_dtype, {"bf16"}, " - fp16 needs loss scaling, which is left out");
  validate_image_terms(c);
  validate_memory(t);
  validate_average(t);
  validate_rates(t);
  validate_light(t);
  validate_guard(t);
  validate_start(c);
}

// The weighting with its options, beside what else the objective is made of.
void validate_weighting(Config const& c, bool renders) {
  auto const& f = c.flow;
  std::string const p = "model.transformer.editor.flow_matching.";
  bool needs_both = false;
  try {
    needs_both = model::make_weighting(weighting_options(c), at::kCPU)->needs_both_losses();
  } catch (std::invalid_argument const& error) {
    throw ConfigError(fmt::format("{}weighting = {}: {}", p, f.weighting, error.what()));
  }
  if (needs_both && (!renders || f.velocity_loss_weight == 0))
    throw ConfigError(
        fmt::format("{}weighting = {} is one of the velocity and the render loss together, but one of them "
                    "is off (velocity_loss_weight {}, render_loss_weight {}{}); "
                    "use weighting: fixed, or give both a weight",
                    p, f.weighting, f.velocity_loss_weight, f.render_loss_weight,
                    has_image_term(c.training) ? "" : ", training.l2_loss_weight and every other image term 0"));
  if (f.weighting == "separate_graphs" && c.training.freeze_reconstructor_renderer)
    throw ConfigError(
        fmt::format("{}weighting = separate_graphs with training.freeze_reconstructor_renderer = true (the render loss "
                    "would train nothing: it reaches the renderer alone); set the latter to false, or "
                    "render_loss_weight to 0 with weighting: fixed",
                    p));
  if (f.weighting == "separate_graphs" && c.latents == "online")
    throw ConfigError(fmt::format(
        "{}weighting = separate_graphs with latents = online (neither loss reaches the reconstructor, which "
        "would only decay); use latents: cached",
        p));
}

void validate_flow(Config const& c) {
  auto const& f = c.flow;
  std::string const p = "model.transformer.editor.flow_matching.";
  require_one_of((p + "weighting").c_str(), f.weighting, model::weighting_names());
  require_one_of((p + "statistics").c_str(), f.statistics, {"current", "lagged", "exposed"});
  require_one_of((p + "gradient_space").c_str(), f.gradient_space, {"v_pred", "parameters"});
  require_one_of((p + "schedule_form").c_str(), f.schedule_form, {"step", "linear"});
  require_one_of((p + "time_sampling").c_str(), f.time_sampling, model::time_sampling_names());
  require_one_of((p + "path").c_str(), f.path, model::path_names());
  require_one_of((p + "ode_solver").c_str(), f.ode_solver, model::solver_names());
  require(f.time_shift > 0, (p + "time_shift").c_str(), f.time_shift, "> 0");
  try {
    model::check_time_sampling(time_sampling(f));
  } catch (std::invalid_argument const& error) {
    throw ConfigError(fmt::format("{}time_sampling: {}", p, error.what()));
  }
  require(std::isfinite(f.path_sigma) && f.path_sigma >= 0, (p + "path_sigma").c_str(), f.path_sigma, ">= 0");
  require(f.path_sigma == 0 || f.path != "linear", (p + "path_sigma").c_str(), f.path_sigma,
          "0 on the linear path; for noise choose path bridge_sqrt or bridge_quadratic");
  require(f.path_sigma > 0 || f.path == "linear", (p + "path_sigma").c_str(), f.path_sigma,
          "> 0 on this path; it is its noise's width");
  require(f.path == "linear" || c.model.editor != model::EditorKind::noise_to_relit, (p + "path").c_str(), f.path,
          "linear for kind noise_to_relit, which starts from noise");
  require(f.ode_rtol > 0, (p + "ode_rtol").c_str(), f.ode_rtol, "> 0");
  require(f.ode_atol > 0, (p + "ode_atol").c_str(), f.ode_atol, "> 0");
  require(f.num_ode_steps > 0, (p + "num_ode_steps").c_str(), f.num_ode_steps, "> 0");
  require(f.weight_ema >= 0 && f.weight_ema < 1, (p + "weight_ema").c_str(), f.weight_ema, "in [0, 1)");
  require(f.weight_clamp.size() <= 2, (p + "weight_clamp").c_str(),
          fmt::format("[{}]", fmt::join(f.weight_clamp, ", ")), "at most two numbers");
  auto const [clamp_min, clamp_max] = clamp_of(f);
  require(clamp_min >= 0 && (clamp_max == 0 || clamp_max >= clamp_min), (p + "weight_clamp").c_str(),
          fmt::format("[{}]", fmt::join(f.weight_clamp, ", ")), "[min, max] with 0 <= min <= max, or max 0: no clamp");
  require(f.velocity_only_steps >= 0, (p + "velocity_only_steps").c_str(), f.velocity_only_steps, ">= 0");
  require(f.alternating_period > 0, (p + "alternating_period").c_str(), f.alternating_period, "> 0");
  require(f.uncertainty_lr > 0 && f.uncertainty_lr <= 1, (p + "uncertainty_lr").c_str(), f.uncertainty_lr, "in (0, 1]");
  require(f.gradient_interval > 0, (p + "gradient_interval").c_str(), f.gradient_interval, "> 0");
  require(f.balance_hint_every >= 0, (p + "balance_hint_every").c_str(), f.balance_hint_every, ">= 0; 0: off");
  require(f.velocity_loss_weight >= 0, (p + "velocity_loss_weight").c_str(), f.velocity_loss_weight, ">= 0");
  require(f.render_loss_weight >= 0, (p + "render_loss_weight").c_str(), f.render_loss_weight, ">= 0");
  bool const renders = f.render_loss_weight > 0 && has_image_term(c.training);
  if (c.objective == "joint" && !renders && f.velocity_loss_weight == 0)
    throw ConfigError(
        fmt::format("{}velocity_loss_weight and render_loss_weight are both 0 (nothing is left to train); "
                    "give one of them a weight",
                    p));
  auto const& times = f.discrete_times;
  bool const gated = c.objective == "joint" && c.training.perceptual_min_t > 0 && f.time_sampling == "discrete" && f.time_shift == 1 && !times.empty();
  if (gated && c.training.lpips_loss_weight + c.training.perceptual_loss_weight > 0)
    require(*std::max_element(times.begin(), times.end()) >= c.training.perceptual_min_t, "training.perceptual_min_t",
            c.training.perceptual_min_t, "at most the largest of discrete_times: no sample would have the networks' terms");
  if (c.objective == "joint") validate_weighting(c, renders);
}

}  // namespace

bool has_image_term(TrainingConfig const& t) {
  return t.l2_loss_weight + t.l1_loss_weight + t.gradient_loss_weight + t.lpips_loss_weight + t.perceptual_loss_weight >
         0;
}

void validate(Config& c) {
  require_one_of("objective", c.objective, {"reconstruction", "joint"});
  require_one_of("latents", c.latents, {"cached", "online"});
  validate_model(c);
  validate_training(c);
  validate_flow(c);
  require_one_of("data.verify", c.data.verify, {"first_touch", "always", "never"});
  require_one_of("data.camera_frame", c.data.camera_frame, {"inputs", "all"});
  require_one_of("data.light_encoding", c.data.light_encoding, {"lvsm", "cosmos", "raw"});
  require(c.data.threads > 0, "data.threads", c.data.threads, "> 0");
  require_one_of("data.shuffle", c.data.shuffle, {"full", "block"});
  require(c.data.shuffle_block_mib > 0, "data.shuffle_block_mib", c.data.shuffle_block_mib, "> 0");
  require(c.data.shuffle_window_mib >= c.data.shuffle_block_mib, "data.shuffle_window_mib", c.data.shuffle_window_mib,
          "at least data.shuffle_block_mib");
  skipped_positions(c);
  parse_frames(c.data.input_frames, "data.input_frames");
  parse_frames(c.data.target_frames, "data.target_frames");
  require(c.dist.virtual_shards >= 0, "dist.virtual_shards", c.dist.virtual_shards, ">= 0");
  require(c.dist.zero == 0 || c.dist.zero == 1, "dist.zero", c.dist.zero, "0 or 1");
  require_one_of("dist.gradient_dtype", c.dist.gradient_dtype, {"f32", "bf16"});
  require(!c.dist.reproducible || c.dist.gradient_dtype == "f32", "dist.gradient_dtype", c.dist.gradient_dtype,
          "f32 with dist.reproducible: what bf16 rounds would depend on the rank count");
  require(c.dist.gradient_dtype == "f32" || c.flow.weighting != "gradient_balance" || c.flow.gradient_space == "v_pred",
          "dist.gradient_dtype", c.dist.gradient_dtype,
          "f32 with gradient_space: parameters: a difference of rounded gradients is no measure");
  require(c.dist.bucket_mib > 0, "dist.bucket_mib", c.dist.bucket_mib, "> 0");
  require(c.dist.first_bucket_mib > 0, "dist.first_bucket_mib", c.dist.first_bucket_mib, "> 0");
  require(c.dist.threads >= 0, "dist.threads", c.dist.threads, ">= 0");
  require(c.dist.timeout_s > 0 && c.dist.timeout_s <= kLongestTimeout_s, "dist.timeout_s", c.dist.timeout_s, "> 0, at most 1e7");
  require(c.dist.step_timeout_s >= 0 && c.dist.step_timeout_s <= kLongestTimeout_s, "dist.step_timeout_s", c.dist.step_timeout_s, ">= 0, at most 1e7");
  require_one_of("dist.device", c.dist.device, {"auto", "cpu", "cuda"});
}

}  // namespace duoflow::launch
