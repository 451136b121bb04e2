// The table of keys: the one place where a key, its type, its default (the struct's) and its meaning meet.
#include <cmath>

#include <yaml-cpp/yaml.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "launch/config.h"

namespace duoflow::launch {
namespace {

template <class T>
std::string type_name() {
  if constexpr (std::is_same_v<T, bool>)
    return "bool";
  else if constexpr (std::is_integral_v<T>)
    return "int";
  else if constexpr (std::is_floating_point_v<T>)
    return "float";
  else if constexpr (std::is_same_v<T, std::string>)
    return "string";
  else if constexpr (std::is_same_v<T, std::vector<std::string>>)
    return "list of string";
  else
    return "list of float";
}

std::string spell_float(double value) {
  if (std::isfinite(value)) return fmt::format("{}", value);
  return std::isnan(value) ? ".nan" : value > 0 ? ".inf" : "-.inf";
}

std::string spell_string(std::string const& value) {
  YAML::Emitter text;
  text << YAML::DoubleQuoted << value;
  return text.c_str();
}

template <class T>
std::string spell(T const& value) {
  if constexpr (std::is_same_v<T, bool>)
    return value ? "true" : "false";
  else if constexpr (std::is_floating_point_v<T>)
    return spell_float(value);
  else if constexpr (std::is_arithmetic_v<T>)
    return fmt::format("{}", value);
  else if constexpr (std::is_same_v<T, std::string>)
    return spell_string(value);
  else if constexpr (std::is_same_v<T, std::vector<std::string>>) {
    std::vector<std::string> parts;
    for (auto const& text : value) parts.push_back(spell_string(text));
    return fmt::format("[{}]", fmt::join(parts, ", "));
  } else {
    std::vector<std::string> parts;
    for (double const number : value) parts.push_back(spell_float(number));
    return fmt::format("[{}]", fmt::join(parts, ", "));
  }
}

// One text may stand alone; an empty one is no text.
std::vector<std::string> texts(std::string const& one) {
  return one.empty() ? std::vector<std::string>() : std::vector<std::string>{one};
}

template <class T>
ConfigKey key(std::string name, T& field, std::string description) {
  return {std::move(name), type_name<T>(), std::move(description),
          [&field](YAML::Node const& node) {
            if constexpr (std::is_same_v<T, std::vector<double>>)
              field = node.IsSequence() ? node.as<T>() : T{node.as<double>()};
            else if constexpr (std::is_same_v<T, std::vector<std::string>>)
              field = node.IsSequence() ? node.as<T>() : texts(node.as<std::string>());
            else
              field = node.as<T>();
          },
          [&field] { return spell(field); }};
}

void add_model_keys(std::vector<ConfigKey>& keys, Config& c) {
  auto& m = c.model;
  std::string const t = "model.transformer.", e = t + "editor.", f = e + "flow_matching.";
  keys.insert(
      keys.end(),
      {
          key("objective", c.objective,
              "reconstruction (stage 1: reconstructor and renderer) or joint (stage 2: flow editor)"),
          key("latents", c.latents, "cached (pair shards) or online (scene shards, both ends encoded each step)"),
          key("model.class_name", c.class_name,
              "naming one of the LVSM family's classes selects its behaviour in every departure"),
          key("model.image_tokenizer.image_size", m.image_size, "side of the square pictures in pixels"),
          key("model.image_tokenizer.patch_size", m.patch_size, "side of a patch in pixels (pictures and light maps)"),
          key("model.target_pose_tokenizer.image_size", c.target_image_size,
              "side of the target pictures; 0: as image_tokenizer (they must agree)"),
          key("model.env_tokenizer.image_size", c.env_image_size,
              "height of the light map before tokenizing, its width is twice that (reference classes: always 256)"),
          key(t + "d", m.d, "token width"),
          key(t + "d_head", m.d_head, "width of an attention head"),
          key(t + "encoder_n_layer", m.encoder_n_layer, "blocks of the reconstructor"),
          key(t + "decoder_n_layer", m.decoder_n_layer, "blocks of the renderer"),
          key(t + "n_latent_vectors", m.n_latent_vectors, "latent tokens of a scene"),
          key(t + "use_qk_norm", m.use_qk_norm, "RMS-normalise queries and keys per head"),
          key(t + "special_init", m.special_init, "scaled initialisation of reconstructor and renderer blocks"),
          key(t + "depth_init", m.depth_init, "initial scale by block depth rather than by the number of blocks"),
          key(e + "kind", c.editor_kind,
              "flow (x0 to x1), noise_to_relit (noise to x1, x0 a condition), one_step (plain blocks, no time) or "
              "residual "
              "(one_step with a zero head that is added to x0)"),
          key(e + "n_layer", m.editor_n_layer, "blocks of the editor"),
          key(e + "init", c.editor_init,
              "zero (gates, and the velocity head if there is one), or, gates open and the head zero, the blocks of: "
              "one_step (a one-step editor) or decoder (the renderer)"),
          key(e + "init_checkpoint", c.editor_init_checkpoint,
              "init one_step: safetensors or .pt file, checkpoint or run folder of a one-step editor"),
          key(e + "init_scale", m.editor_init_scale, "one_step and residual: factor on the blocks' initial deviation"),
          key(e + "latent_scale", m.latent_scale,
              "factor on the latents that the flow sees (the reference's noise_to_relit: 0.136)"),
          key(e + "residual_scale", m.residual_scale,
              "residual: factor on the head's output (the reference's class, at inference: 0.05)"),
          key(e + "time_scale", m.time_scale, "factor on t before its embedding (reference classes: 1)"),
          key(e + "velocity_head", m.velocity_head,
              "zero-initialised output head: the untrained editor is the identity (reference classes: false)"),
          key(e + "light_in_adaln", m.light_in_adaln,
              "the mean of an MLP over the light tokens joins the time in AdaLN (reference classes: false)"),
          key(e + "normalize_latents", m.normalize_latents,
              "the flow sees latents normalised by the data's statistics (reference classes: false)"),
          key(f + "velocity_loss_weight", c.flow.velocity_loss_weight, "lambda_v"),
          key(f + "render_loss_weight", c.flow.render_loss_weight, "lambda_r"),
          key(f + "normalize_losses", c.flow.normalize_losses, "the seed's spelling of weighting: normalized"),
          key(f + "weighting", c.flow.weighting,
              "fixed, normalized, normalized_each, schedule, two_stage, alternating, separate_graphs, uncertainty, "
              "gradient_balance or pcgrad; see docs/weighting.md. The default is of flow editors with both losses; "
              "reference classes and others: fixed"),
          key(f + "statistics", c.flow.statistics,
              "normalized, normalized_each and gradient_balance at v_pred take the weights that belong to: current "
              "(this step; of gradient_balance measured in the last), lagged (the last step) or, gradient_balance "
              "alone, exposed (this step's own norms: one more reduction, waited for)"),
          key(f + "weight_clamp", c.flow.weight_clamp, "bounds of an adaptive weight: [max] or [min, max]; [] off, as it is where weighting is written"),
          key(f + "weight_ema", c.flow.weight_ema, "smoothing of an adaptive weight, 0 (off, as it is where weighting is written) to below 1"),
          key(f + "warmup_steps", c.flow.warmup_steps, "schedule: steps until the end values hold"),
          key(f + "schedule_form", c.flow.schedule_form, "schedule: step or linear"),
          key(f + "velocity_start", c.flow.velocity_start, "schedule: velocity weight before warm-up ends"),
          key(f + "velocity_end", c.flow.velocity_end, "schedule: velocity weight after it"),
          key(f + "render_start", c.flow.render_start, "schedule: render weight before warm-up ends"),
          key(f + "render_end", c.flow.render_end, "schedule: render weight after it"),
          key(f + "velocity_only_steps", c.flow.velocity_only_steps, "two_stage: steps before the render loss joins"),
          key(f + "alternating_period", c.flow.alternating_period,
              "alternating: steps of the velocity loss alone, then as many of the render loss alone"),
          key(f + "uncertainty_lr", c.flow.uncertainty_lr, "uncertainty: learning rate of the two log-variances"),
          key(f + "gradient_space", c.flow.gradient_space,
              "gradient_balance: v_pred (a proxy; costs nothing) or parameters (the editor's; at intervals)"),
          key(f + "gradient_interval", c.flow.gradient_interval,
              "gradient_balance over parameters: steps between measurements, each one editor pass and reduction more"),
          key(f + "balance_hint_every", c.flow.balance_hint_every,
              "steps over which the losses' shares are averaged for a hint in the log that they are out of balance; 0: "
              "off"),
          key(f + "time_sampling", c.flow.time_sampling,
              "distribution of t: uniform, early_bias, late_bias, mixed, logit_normal, mode, cosmap or discrete; other editors "
              "than flow and reference classes: uniform"),
          key(f + "time_mean", c.flow.time_mean, "logit_normal: mean of logit t; negative favours the source"),
          key(f + "time_deviation", c.flow.time_deviation, "logit_normal: deviation of logit t"),
          key(f + "time_mode_scale", c.flow.time_mode_scale, "mode: scale, -1 to 1.7519"),
          key(f + "discrete_times", c.flow.discrete_times, "discrete: the times, each in [0, 1]"),
          key(f + "time_shift", c.flow.time_shift, "a: t becomes a t / (1 + (a-1) t); 1: off"),
          key(f + "path", c.flow.path,
              "linear, bridge_sqrt, bridge_quadratic, or noisy_linear (the reference's, whose target leaves the noise "
              "in x_hat)"),
          key(f + "path_sigma", c.flow.path_sigma, "width of a path's noise"),
          key(f + "ode_solver", c.flow.ode_solver, "solver of evaluate and edit: euler, midpoint, heun, rk4 or dopri5"),
          key(f + "num_ode_steps", c.flow.num_ode_steps,
              "solver steps of evaluate and edit; dopri5: its first step is 1/this"),
          key(f + "ode_rtol", c.flow.ode_rtol, "dopri5: relative tolerance"),
          key(f + "ode_atol", c.flow.ode_atol, "dopri5: absolute tolerance"),
      });
}

void add_training_keys(std::vector<ConfigKey>& keys, Config& c) {
  auto& t = c.training;
  keys.insert(
      keys.end(),
      {
          key("training.batch_size_per_gpu", t.batch_size_per_gpu,
              "samples of one micro-step on one rank, at most; of smaller virtual shards the editor graphs of so many "
              "are kept at once"),
          key("training.global_batch_size", t.global_batch_size,
              "samples of one step over all ranks; 0: batch_size_per_gpu x ranks x grad_accum_steps"),
          key("training.grad_accum_steps", t.grad_accum_steps,
              "micro-steps per step when global_batch_size is not set"),
          key("training.lr", t.lr, "peak learning rate"),
          key("training.beta1", t.beta1, "AdamW"),
          key("training.beta2", t.beta2, "AdamW"),
          key("training.weight_decay", t.weight_decay, "AdamW, on parameters with more than one dimension"),
          key("training.warmup", t.warmup, "updates of linear warm-up"),
          key("training.train_steps", t.train_steps, "steps of the run"),
          key("training.scheduler_type", t.scheduler_type, "cosine, linear or constant, after warm-up"),
          key("training.grad_clip_norm", t.grad_clip_norm, "global gradient norm bound; 0: off"),
          key("training.allowed_gradnorm_factor", t.allowed_gradnorm_factor,
              "an update whose norm exceeds grad_clip_norm times this is skipped; 0: off"),
          key("training.max_skips_in_a_row", t.max_skips_in_a_row, "this many skipped updates in a row end the run"),
          key("training.num_input_views", t.num_input_views, "views the reconstructor sees"),
          key("training.num_target_views", t.num_target_views, "views rendered per sample"),
          key("training.target_has_input", t.target_has_input, "targets may be input views (reconstruction)"),
          key("training.l2_loss_weight", t.l2_loss_weight, "weight of the mean squared error in the render loss"),
          key("training.l1_loss_weight", t.l1_loss_weight, "weight of the mean absolute error"),
          key("training.gradient_loss_weight", t.gradient_loss_weight,
              "weight of the L1 distance of the pictures' finite differences"),
          key("training.lpips_loss_weight", t.lpips_loss_weight,
              "weight of LPIPS; its networks: `launch/setup.sh --perceptual`"),
          key("training.lpips_network", t.lpips_network, "vgg (VGG16) or alex (AlexNet), of the loss"),
          key("training.lpips_weights", t.lpips_weights,
              "safetensors file of that network; empty: where the set-up puts it (`.cache/weights`, or "
              "$DUOFLOW_WEIGHTS)"),
          key("training.perceptual_loss_weight", t.perceptual_loss_weight,
              "weight of the VGG19 perceptual loss; needs training.perceptual_weights"),
          key("training.perceptual_weights", t.perceptual_weights,
              "safetensors file of MatConvNet's VGG19, made by `launch/loss_weights.py vgg19 FILE OUT` of the user's "
              "file"),
          key("training.perceptual_min_t", t.perceptual_min_t,
              "joint: LPIPS and the VGG19 loss count for samples with t of at least this; their sum is divided by all "
              "samples"),
          key("training.perceptual_crop", t.perceptual_crop,
              "LPIPS and the VGG19 loss see a random square of so many pixels a side of each picture; 0: all of it"),
          key("training.use_amp", t.use_amp, "matrix products and attention in amp_dtype"),
          key("training.amp_dtype", t.amp_dtype, "bf16 (weights stay fp32)"),
          key("training.attention_backend", t.attention_backend,
              "attention on CUDA: measured (each is timed before the first step at the run's shape and the fastest taken; in "
              "reproducible mode as library), library (ATen's own choice), cudnn, flash or efficient (it has not run on a GPU yet)"),
          key("training.cuda_graph", t.cuda_graph,
              "on CUDA the step is recorded as a graph after three steps and launched in one call from then on; a run "
              "whose settings forbid it says why and goes on without (it has not run on a GPU yet)"),
          key("training.grad_checkpoint_every", t.grad_checkpoint_every,
              "k: run k blocks at a time again in the backward, keeping what goes into them; 0: keep activations"),
          key("training.grad_checkpoint_part", t.grad_checkpoint_part,
              "what of each block is run again: block, or, with grad_checkpoint_every 1, attention or mlp alone"),
          key("training.render_view_chunk", t.render_view_chunk,
              "target views rendered and walked back at once: the same gradients, memory of so many views; 0: all"),
          key("training.print_every", t.print_every, "steps between log lines"),
          key("training.checkpoint_every", t.checkpoint_every,
              "steps between checkpoints; one is always written at the end"),
          key("training.vis_every", t.vis_every, "steps between pictures in images/; 0: off"),
          key("training.seed", t.seed, "initialisation, order, times"),
          key("training.keep_last", t.keep_last, "checkpoints kept"),
          key("training.keep_every", t.keep_every, "checkpoints at multiples of this are never pruned; 0: none"),
          key("training.checkpoint_async", t.checkpoint_async,
              "checkpoints are written while training goes on; false: training waits for the disk"),
          key("training.checkpoint_busy", t.checkpoint_busy,
              "a checkpoint is due while the last one is still being written: wait for it, or drop the new one"),
          key("training.checkpoint_failure", t.checkpoint_failure,
              "a checkpoint could not be written: stop the run, or continue with a warning"),
          key("training.stop_file", t.stop_file,
              "when this file appears the run ends after a checkpoint, as on SIGUSR2; empty: none"),
          key("training.eval_every", t.eval_every,
              "joint: steps between measurements on held-out pairs (RUN/evaluation.jsonl), with the weights as "
              "trained, not their average; 0: none"),
          key("training.eval_data", t.eval_data, "their folder of pair shards, encoded as the training pairs were"),
          key("training.eval_pairs", t.eval_pairs, "how many of its pairs, spread evenly"),
          key("training.keep_best", t.keep_best,
              "the checkpoint of the best measurement (psnr_masked, of the trained weights, not their average) is named in checkpoints/best and never pruned"),
          key("training.init_from", t.init_from,
              "weights-only start: safetensors or .pt file, checkpoint or run folder"),
          key("training.init_weights", t.init_weights,
              "which weights of that checkpoint: trained, ema (their average), or auto: ema where it has them"),
          key("training.freeze_reconstructor_renderer", t.freeze_reconstructor_renderer,
              "joint: only the editor trains; also accepted under model.transformer"),
          key("training.freeze", t.freeze,
              "globs on parameter keys: what matches does not train either, for example [env_tokenizer.*]"),
          key("training.lr_scale", t.lr_scale,
              "factors on the learning rate by glob, the last that matches counts: [\"transformer_editor.0.*=0.1\"]"),
          key("training.layer_lr_decay", t.layer_lr_decay,
              "the learning rate of an editor block is lowered by this factor for every block behind it; 1: off"),
          key("training.ema_decay", t.ema_decay,
              "a running average of the trainable parameters, which evaluate, edit, encode and export take; 0: none"),
          key("training.ema_warmup", t.ema_warmup, "its decay is at most n / (9 + n) at the n-th update"),
          key("training.light_dropout", t.light_dropout,
              "joint: share of the samples that are shown no light (tokens of zeros): what --guidance needs"),
          key("training.collapse_guard", t.collapse_guard,
              "joint, reconstructor trainable: acts when the latents' deviation falls below this share of the first "
              "step's; 0: off"),
          key("training.collapse_action", t.collapse_action, "warn, or stop: the run ends with an error"),
          key("training.max_hours", t.max_hours, "checkpoint and stop with code 75 so that both are done by then, going by the last step and checkpoint; 0: off"),
      });
}

void add_other_keys(std::vector<ConfigKey>& keys, Config& c) {
  keys.insert(
      keys.end(),
      {
          key("data.threads", c.data.threads, "reader threads per rank"),
          key("data.verify", c.data.verify, "first_touch, always or never: check sample hashes"),
          key("data.allow_other_producer", c.data.allow_other_producer,
              "accept latents encoded by another reconstructor than the one in use"),
          key("data.input_frames", c.data.input_frames,
              "fixed input frames, for example \"0,4,8,12\"; empty: drawn per sample (reconstruction), spread "
              "evenly (encode)"),
          key("data.target_frames", c.data.target_frames,
              "frames targets are taken from, for example \"0-11\"; empty: all"),
          key("data.camera_frame", c.data.camera_frame,
              "views that cameras are normalised over when scenes are encoded: inputs (what the model is shown), or all "
              "(the targets too; reference classes)"),
          key("data.exclude_lights", c.data.exclude_lights,
              "reconstruction: glob of lights never trained on, for example \"env_00?\""),
          key("data.light_encoding", c.data.light_encoding,
              "lvsm (the family's: clipped, and log over its maximum), cosmos, or raw (radiance and log1p; shows a "
              "small editor the light much sooner, see benchmarks/results/light_encoding.md)"),
          key("data.shuffle", c.data.shuffle,
              "full (any sample may follow any other) or block (for folders larger than memory: samples near each "
              "other "
              "in the order come from few places of the folder)"),
          key("data.shuffle_block_mib", c.data.shuffle_block_mib,
              "shuffle: block: what is read from one place of the folder, in MiB"),
          key("data.shuffle_window_mib", c.data.shuffle_window_mib,
              "shuffle: block: what is mixed at a time, in MiB, of all data folders together; reading needs up to "
              "twice "
              "as much memory for the operating system's page cache"),
          key("data.skip", c.data.skip,
              "positions of the order never trained on, both ends skipped, for example [9600-9999]; `samples` of "
              "metrics.jsonl and of messages counts positions (lines with samples 9600 and 10000 have 9600-9999 "
              "between them), skipped ones included; the other samples keep their places and random numbers"),
          key("data.log_samples", c.data.log_samples,
              "list every sample trained on in RUN/samples/rank_R.tsv: position, data folder, pair or scene, xxh3 of "
              "its "
              "bytes"),
          key("dist.reproducible", c.dist.reproducible,
              "bit-identical losses, weights and checkpoints at any rank count that is a power of two"),
          key("dist.virtual_shards", c.dist.virtual_shards,
              "reproducible: pieces of the global batch that are computed one by one (a power of two; 0: 8); "
              "with it dist.threads = 0 means 1"),
          key("dist.zero", c.dist.zero, "1: each rank keeps and updates its share of the optimizer state (ZeRO-1)"),
          key("dist.gradient_dtype", c.dist.gradient_dtype,
              "f32, or bf16: half the bytes, summed in fp32 and rounded once"),
          key("dist.bucket_mib", c.dist.bucket_mib, "gradient bucket size"),
          key("dist.first_bucket_mib", c.dist.first_bucket_mib,
              "first bucket, small so that communication starts early"),
          key("dist.timeout_s", c.dist.timeout_s, "deadline of a collective in seconds"),
          key("dist.step_timeout_s", c.dist.step_timeout_s,
              "deadline of a step in seconds, reading data and writing checkpoints included; 0: ten times "
              "dist.timeout_s"),
          key("dist.threads", c.dist.threads, "compute threads per rank; 0: cores of the host / ranks on it"),
          key("dist.device", c.dist.device, "auto, cpu or cuda"),
      });
}

}  // namespace

std::vector<ConfigKey> config_keys(Config& config) {
  std::vector<ConfigKey> keys;
  add_model_keys(keys, config);
  add_training_keys(keys, config);
  add_other_keys(keys, config);
  return keys;
}

std::vector<std::pair<std::string, std::string>> const& unused_keys() {
  static std::vector<std::pair<std::string, std::string>> const keys = {
      {"model.image_tokenizer.in_channels", "always 9: RGB and Pluecker rays"},
      {"model.target_pose_tokenizer.in_channels", "always 6: Pluecker rays"},
      {"model.target_pose_tokenizer.patch_size", "one patch size for all tokenizers"},
      {"model.env_tokenizer.in_channels", "always 9: LDR, log HDR, direction"},
      {"model.env_tokenizer.patch_size", "one patch size for all tokenizers"},
      {"model.transformer.editor.use_residual_mode",
       "model.transformer.editor.kind; the reference's residual class heeds it, though its forward runs no editor"},
      {"model.transformer.editor.init_from_decoder",
       "model.transformer.editor.init: decoder does it (with AdaLN blocks the reference's own strict load raises)"},
      {"model.transformer.editor.use_flow_matching", "no class of the reference reads it; model.transformer.editor.kind decides"},
      {"model.transformer.editor.flow_matching.time_embed_dim", "equals d, as in the reference's code"},
      {"model.transformer.editor.flow_matching.use_ada_ln", "always on, as in the reference's code"},
      {"model.transformer.decoder_head.*", "the DPT head is left out"},
      {"model.transformer.use_albedo_decoder", "the albedo decoder is left out"},
      {"model.decoder_head.*", "the plain (mlp) head is the one there is"},
      {"model.point_light_tokenizer.*", "point lights are left out"},
      {"training.dpt_transfer.*", "the DPT head is left out"},
      {"model.dpt_transfer.*", "the DPT head is left out"},
      {"dpt_transfer.*", "the DPT head is left out"},
      {"loss.fidelity_weight", "a pull between the two encodings, which no editor is part of; left out"},
      {"training.api_key_path", "no account is used; curves go to TensorBoard files"},
      {"training.wandb_exp_name", "curves go to TensorBoard files"},
      {"training.wandb_log_every", "curves go to TensorBoard files"},
      {"training.wandb_project", "curves go to TensorBoard files"},
      {"training.dataset_name", "given by --data"},
      {"training.dataset_path", "given by --data"},
      {"training.extra_dataset_paths", "given by --data"},
      {"training.checkpoint_dir", "given by --run"},
      {"training.resume_ckpt", "given by --resume"},
      {"training.reset_training_state", "given by --resume never and training.init_from"},
      {"training.single_step_editor_checkpoint",
       "the reference never loads it; model.transformer.editor.init: one_step with init_checkpoint does"},
      {"training.center_crop", "done by ingest"},
      {"training.square_crop", "done by ingest"},
      {"training.scene_scale_factor", "1.35, as the reference's default"},
      {"training.use_rel_pose", "cameras are always relative to a mean camera, data.camera_frame says of which views"},
      {"training.num_threads", "data.threads"},
      {"training.num_workers", "data.threads"},
      {"training.prefetch_factor", "the loader keeps two steps of batches"},
      {"training.num_views", "num_input_views and num_target_views decide"},
      {"training.view_selector.*", "data.input_frames and data.target_frames decide"},
      {"training.use_tf32", "fp32 products stay fp32; use_amp is the fast mode"},
      {"training.single_env_map", "one world-frame map per light"},
      {"training.single_point_light", "point lights are left out"},
      {"training.relight_signals", "environment maps are the light signal"},
      {"training.point_light_tokenizer", "point lights are left out"},
      {"training.point_light_num_rays", "point lights are left out"},
      {"training.fixed_t", "only the set-loss variants read it, which are left out"},
      {"training.noise_seed", "belongs to the overfit variant"},
      {"training.training_mode", "only the set-loss variants read it, which are left out; loss weights decide"},
      {"training.single_step_inference", "num_ode_steps decides"},
      {"training.compute_hungarian_loss", "only the set-loss variants read it, which are left out"},
      {"training.log_grad_norm_details", "norms are always logged"},
      {"training.recon_only", "false is what is done anyway; true is objective: reconstruction"},
      {"training.single_view_input_mode", "num_input_views decides"},
      {"training.load_all_max_target_views", "num_target_views decides"},
      {"training.point_light_plucker_method", "point lights are left out"},
      {"training.editor_condition_source", "one world-frame map per light"},
      {"training.context_dataset_path", "pairs are made by encode"},
      {"training.cross_split_relight", "pairs are made by encode"},
      {"training.cross_split_context_env_mode", "pairs are made by encode"},
      {"training.cross_split_envmap_h", "pairs are made by encode"},
      {"training.cross_split_envmap_w", "pairs are made by encode"},
      {"training.cross_split_fix_envmap_size", "pairs are made by encode"},
      {"training.multi_edit.*", "belongs to the chained variant"},
      {"training.load_all_frames", "shards hold all frames"},
      {"training.dynamic_input_view_num", "the number of input views is fixed"},
      {"training.whiteEnvInput", "pairs decide the input light"},
      {"training.condition_reverse", "pairs are ordered both ways"},
      {"training.use_relit_images", "pairs hold the target light's pictures"},
      {"training.use_albedos", "the albedo decoder is left out"},
      {"training.flow_match.train_timestep", "time_sampling decides"},
      {"training.skip_renderer", "false is what is done anyway; true is render_loss_weight: 0"},
      {"inference.*", "evaluate and edit take their choices on the command line"},
  };
  return keys;
}

}  // namespace duoflow::launch
