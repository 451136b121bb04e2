#include "launch/config_notes.h"

#include <string>
#include <vector>

#include <fmt/format.h>

namespace duoflow::launch {
namespace {

// Weightings that `statistics` can make lag.
bool knows_weights_at_cut(FlowMatchingConfig const& f) {
  return f.weighting == "normalized" || f.weighting == "normalized_each" ||
         (f.weighting == "gradient_balance" && f.gradient_space == "v_pred");
}

struct OptionOf {
  char const *owner, *key;
  bool changed;
};

// Options of one weighting or time sampling beside another.
void note_other_choices(Config& c) {
  FlowMatchingConfig const& f = c.flow;
  FlowMatchingConfig const usual;
  auto const note = [&](char const* choice, std::string const& chosen, std::vector<OptionOf> const& options) {
    for (auto const& [owner, key, changed] : options) {
      auto const name = fmt::format("model.transformer.editor.flow_matching.{}", key);
      if (chosen != owner && changed && c.written.contains(name))
        c.notes.push_back(fmt::format("{} has no effect (it is of {}: {})", name, choice, owner));
    }
  };
  note("time_sampling", f.time_sampling,
       {{"logit_normal", "time_mean", f.time_mean != usual.time_mean},
        {"logit_normal", "time_deviation", f.time_deviation != usual.time_deviation},
        {"mode", "time_mode_scale", f.time_mode_scale != usual.time_mode_scale},
        {"discrete", "discrete_times", f.discrete_times != usual.discrete_times}});
  note("weighting", f.weighting,
       {{"two_stage", "velocity_only_steps", f.velocity_only_steps != usual.velocity_only_steps},
        {"alternating", "alternating_period", f.alternating_period != usual.alternating_period},
        {"uncertainty", "uncertainty_lr", f.uncertainty_lr != usual.uncertainty_lr},
        {"gradient_balance", "gradient_space", f.gradient_space != usual.gradient_space},
        {"gradient_balance", "gradient_interval", f.gradient_interval != usual.gradient_interval},
        {"schedule", "warmup_steps", f.warmup_steps != usual.warmup_steps},
        {"schedule", "schedule_form", f.schedule_form != usual.schedule_form},
        {"schedule", "velocity_start", f.velocity_start != usual.velocity_start},
        {"schedule", "velocity_end", f.velocity_end != usual.velocity_end},
        {"schedule", "render_start", f.render_start != usual.render_start},
        {"schedule", "render_end", f.render_end != usual.render_end}});
}

}  // namespace

void note_what_has_no_effect(Config& c) {
  auto const note = [&](bool idle, char const* key, char const* why) {
    if (idle && c.written.contains(key)) c.notes.push_back(fmt::format("{} has no effect ({})", key, why));
  };
  note(c.training.grad_checkpoint_every == 0 && c.training.grad_checkpoint_part != "block",
       "training.grad_checkpoint_part", "training.grad_checkpoint_every is 0");
  bool const no_editor = c.objective == "reconstruction";
  note(no_editor && c.training.light_dropout > 0, "training.light_dropout", "reconstruction sees no light map");
  note(no_editor && c.training.layer_lr_decay != 1, "training.layer_lr_decay", "reconstruction trains no editor");
  note(c.training.ema_decay == 0 && !c.training.ema_warmup, "training.ema_warmup", "training.ema_decay is 0");
  note(!c.dist.reproducible && c.dist.virtual_shards > 0, "dist.virtual_shards", "dist.reproducible is false");
  note(c.objective == "joint" && c.latents == "cached" && !c.data.exclude_lights.empty(), "data.exclude_lights",
       "the lights of cached latents were chosen when they were encoded");
  note(c.model.residual_scale != 1 && (no_editor || c.model.editor != model::EditorKind::residual), "model.transformer.editor.residual_scale", "no residual editor");
  DataConfig const usual;
  bool const whole = c.data.shuffle == "full";
  note(whole && c.data.shuffle_block_mib != usual.shuffle_block_mib, "data.shuffle_block_mib", "data.shuffle is full");
  note(whole && c.data.shuffle_window_mib != usual.shuffle_window_mib, "data.shuffle_window_mib", "data.shuffle is full");
  note(c.training.global_batch_size > 0 && c.training.grad_accum_steps != 1, "training.grad_accum_steps",
       "training.global_batch_size is set: micro-steps are as many as batch_size_per_gpu makes of it");
  bool const encoder_trains =
      c.objective == "joint" && c.latents == "online" && !c.training.freeze_reconstructor_renderer;
  note(!encoder_trains && c.training.collapse_action != "warn", "training.collapse_action",
       "no reconstructor trains towards the velocity loss");
  note(!no_editor && !model::knows_time(c.model.editor) && c.flow.time_sampling != "uniform",
       "model.transformer.editor.flow_matching.time_sampling", "the editor knows no time");
  note(no_editor && c.training.eval_every > 0, "training.eval_every", "reconstruction edits nothing");
  note(c.flow.statistics != "current" && !knows_weights_at_cut(c.flow),
       "model.transformer.editor.flow_matching.statistics", "the weighting waits for no statistics");
  note_other_choices(c);
  auto const& t = c.training;
  bool const networks = t.lpips_loss_weight + t.perceptual_loss_weight > 0;
  char const* const no_network = "training.lpips_loss_weight and training.perceptual_loss_weight are 0";
  note(!networks && t.perceptual_crop > 0, "training.perceptual_crop", no_network);
  note(!networks && t.perceptual_min_t > 0, "training.perceptual_min_t", no_network);
  bool const timeless = no_editor || !model::knows_time(c.model.editor);
  note(networks && t.perceptual_min_t > 0 && timeless, "training.perceptual_min_t",
       no_editor ? "reconstruction has no times" : "the editor knows no time");
  if (timeless) c.training.perceptual_min_t = 0;
  FlowMatchingConfig const unset;
  for (auto const& [idle, key] : {std::pair{c.flow.path != unset.path, "path"}, std::pair{c.flow.path_sigma != unset.path_sigma, "path_sigma"},
                                  std::pair{c.flow.time_shift != unset.time_shift, "time_shift"}})
    note(!no_editor && timeless && idle, fmt::format("model.transformer.editor.flow_matching.{}", key).c_str(), "the editor knows no time");
  bool const adaptive = c.flow.ode_solver == "dopri5";
  note(!adaptive && c.flow.ode_rtol != unset.ode_rtol, "model.transformer.editor.flow_matching.ode_rtol", "ode_solver is not dopri5");
  note(!adaptive && c.flow.ode_atol != unset.ode_atol, "model.transformer.editor.flow_matching.ode_atol", "ode_solver is not dopri5");
  note(t.grad_clip_norm == 0 && t.allowed_gradnorm_factor != TrainingConfig().allowed_gradnorm_factor, "training.allowed_gradnorm_factor",
       "training.grad_clip_norm is 0");
  note(t.lpips_loss_weight == 0 && t.lpips_network != TrainingConfig().lpips_network, "training.lpips_network",
       "training.lpips_loss_weight is 0");
  note(t.lpips_loss_weight == 0 && !t.lpips_weights.empty(), "training.lpips_weights",
       "training.lpips_loss_weight is 0");
  note(t.perceptual_loss_weight == 0 && !t.perceptual_weights.empty(), "training.perceptual_weights",
       "training.perceptual_loss_weight is 0");
  double const unscaled = model::ModelOptions().editor_init_scale;
  if (!model::knows_time(c.model.editor) || c.model.editor_init_scale == unscaled) return;
  note(true, "model.transformer.editor.init_scale",
       "the blocks of a flow editor start as the identity, in the reference too");
  c.model.editor_init_scale = unscaled;  // said once: the effective config is without it
}

}  // namespace duoflow::launch
