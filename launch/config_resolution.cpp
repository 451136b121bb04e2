#include "launch/config_resolution.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "launch/config_notes.h"
#include "launch/config_validation.h"

namespace duoflow::launch {
namespace {

std::string const kFlow = "model.transformer.editor.flow_matching.";
std::string const kResidualScale = "model.transformer.editor.residual_scale";
std::string const kWeighting = kFlow + "weighting", kNormalizeLosses = kFlow + "normalize_losses";

// The classes of the LVSM family's code and the editor each has; "": none (stage 1).
std::vector<std::pair<std::string, std::string>> const kReferenceClasses = {
    {"model.LVSM_flow_match_editor.FlowMatchEditor", "flow"},
    {"model.LVSM_flow_match_editor_noise2relit.FlowMatchEditor", "noise_to_relit"},
    {"model.LVSM_scene_encoder_decoder_wEditor.LatentSceneEditor", "one_step"},
    {"model.LVSM_scene_encoder_decoder_wEditor_residual.LatentSceneEditor", "one_step"},
    {"model.LVSM_scene_encoder_decoder_wEditor_stanfordORB.LatentSceneEditor", "one_step"},
    {"model.LVSM_scene_encoder_decoder_wEditor_obj-with-light.LatentSceneEditor", "one_step"},
    {"model.LVSM_scene_encoder_decoder.Images2LatentScene", ""},
};

constexpr std::int64_t kReferenceEnvSize = 256;

constexpr double kReferenceNoiseLatentScale = 0.136, kReferenceResidualScale = 0.05;

// What a YAML that names a class of the reference gets unless it says otherwise.
void apply_reference_behaviour(Config& c, WrittenBy writer) {
  if (c.class_name.empty()) return;
  std::string const e = "model.transformer.editor.";
  auto unless_written = [&](std::string const& key, auto& field, auto value) {
    if (!c.written.contains(key)) field = value;
  };
  auto const& editor = reference_editor(c.class_name);
  if (editor.empty()) unless_written("objective", c.objective, "reconstruction");
  unless_written(e + "kind", c.editor_kind, editor.empty() ? "flow" : c.residual_mode ? "residual" : editor);
  unless_written(e + "latent_scale", c.model.latent_scale,
                 c.editor_kind == "noise_to_relit" ? kReferenceNoiseLatentScale : 1.0);
  if (c.editor_kind == "residual") unless_written(e + "init_scale", c.model.editor_init_scale, 0.01);
  // A run's own config without one of these keys is of before there was one.
  bool const by_user = writer == WrittenBy::user;
  if (c.editor_kind == "residual" && by_user) unless_written(kResidualScale, c.model.residual_scale, kReferenceResidualScale);
  if (by_user) unless_written("data.camera_frame", c.data.camera_frame, "all");
  if (editor == "one_step") unless_written(e + "flow_matching.velocity_loss_weight", c.flow.velocity_loss_weight, 0.0);
  if (c.editor_kind == "noise_to_relit" && c.flow.path_sigma != 0 && by_user) {
    c.notes.push_back(fmt::format("noise_scale = {} is not used: {} never reads it", c.flow.path_sigma, c.class_name));
    c.flow.path_sigma = 0;
  }
  if (c.flow.path_sigma != 0) unless_written(e + "flow_matching.path", c.flow.path, std::string("noisy_linear"));
  unless_written(e + "time_scale", c.model.time_scale, 1.0);
  unless_written(e + "velocity_head", c.model.velocity_head, false);
  unless_written(e + "light_in_adaln", c.model.light_in_adaln, false);
  unless_written(e + "normalize_latents", c.model.normalize_latents, false);
  unless_written("training.freeze_reconstructor_renderer", c.training.freeze_reconstructor_renderer, false);
  std::string const env_size = "model.env_tokenizer.image_size";
  if (c.written.contains(env_size) && c.env_image_size != kReferenceEnvSize)
    c.notes.push_back(fmt::format("{} = {} is taken as {}: {} never reads that key", env_size, c.env_image_size,
                                  kReferenceEnvSize, c.class_name));
  c.env_image_size = kReferenceEnvSize;
}

// The keys' defaults are what edited best in benchmarks/results/ablation.md: of a flow editor with both losses. For
// others, for one loss alone, for the reference's classes and for runs of before these were the defaults, what no key says is plain.
void apply_plain_defaults(Config& c, WrittenBy writer) {
  auto& f = c.flow;
  bool const both_losses = f.velocity_loss_weight > 0 && f.render_loss_weight > 0 && has_image_term(c.training);
  bool const measured = writer == WrittenBy::user && c.class_name.empty() && c.objective == "joint" && c.editor_kind == "flow" && both_losses;
  if (!measured && !c.written.contains(kFlow + "time_sampling")) f.time_sampling = "uniform";
  if (measured && !c.written.contains(kWeighting) && !c.written.contains(kNormalizeLosses)) return;
  if (!c.written.contains(kWeighting)) f.weighting = "fixed";
  if (!c.written.contains(kNormalizeLosses)) f.normalize_losses = false;
  if (!c.written.contains(kFlow + "weight_clamp")) f.weight_clamp.clear();
  if (!c.written.contains(kFlow + "weight_ema")) f.weight_ema = 0;
}

model::EditorKind editor_kind(std::string const& name) {
  require_one_of("model.transformer.editor.kind", name, {"flow", "noise_to_relit", "one_step", "residual"});
  return name == "flow"             ? model::EditorKind::flow
         : name == "noise_to_relit" ? model::EditorKind::noise_to_relit
         : name == "one_step"       ? model::EditorKind::one_step
                                    : model::EditorKind::residual;
}

model::RecomputePart recompute_part(std::string const& name) {
  require_one_of("training.grad_checkpoint_part", name, {"block", "attention", "mlp"});
  return name == "block"       ? model::RecomputePart::block
         : name == "attention" ? model::RecomputePart::attention
                               : model::RecomputePart::mlp;
}

// normalize_losses says in other words whether weighting is `normalized`. Written in one place the two must agree; one
// on the command line wins over the other in the file. Afterwards they agree, so that the effective config loads again.
void settle_weighting(Config& c, std::set<std::string> const& overridden, WrittenBy writer) {
  auto& f = c.flow;
  bool const both = c.written.contains(kWeighting) && c.written.contains(kNormalizeLosses);
  if (both && f.normalize_losses != (f.weighting == "normalized")) {
    bool const new_weighting = overridden.contains(kWeighting), new_flag = overridden.contains(kNormalizeLosses);
    bool const left_as_given = writer == WrittenBy::duoflow && !new_flag;  // the flag, by runs of before this rule
    if (new_weighting == new_flag && !left_as_given)
      throw ConfigError(
          fmt::format("normalize_losses: {} contradicts weighting: {} (normalize_losses is the seed's spelling of "
                      "weighting: normalized); keep one",
                      f.normalize_losses, f.weighting));
    if (new_flag) f.weighting = f.normalize_losses ? "normalized" : "fixed";
  } else if (f.normalize_losses) {
    f.weighting = "normalized";
  }
  f.normalize_losses = f.weighting == "normalized";
}

// Of an editor that knows no time: `key` is what it must be where no key says otherwise, or where one cannot be held to what it
// says: the family's YAMLs carry flow_match along, a run of before may have a solver.
template <class T>
void edit_at_once(Config& c, std::string const& key, T& value, T only, WrittenBy writer) {
  bool const carried = !c.class_name.empty() || writer == WrittenBy::duoflow;
  if (c.written.contains(kFlow + key) && !carried) return;
  if (carried && value != only && c.written.contains(kFlow + key))
    c.notes.push_back(fmt::format("{} = {} is taken as {}: an editor of kind {} knows no time", key, value, only, c.editor_kind));
  value = only;
}

}  // namespace

std::string const& reference_editor(std::string const& class_name) {
  std::vector<std::string> names;
  for (auto const& [name, editor] : kReferenceClasses) {
    if (name == class_name) return editor;
    names.push_back(name);
  }
  throw ConfigError(
      fmt::format("model.class_name = {} is not a class of the LVSM family that this version has; it has {}",
                  class_name, fmt::join(names, ", ")));
}

void keep_plain_objective(Config& c, Config const& begun) {
  auto& f = c.flow;
  auto const silent = [&](std::string const& key) { return !c.written.contains(key); };
  bool const plain = begun.flow.weighting == "fixed" && begun.flow.weight_clamp.empty() && begun.flow.weight_ema == 0;
  if (plain && silent(kWeighting) && silent(kNormalizeLosses) && silent(kFlow + "weight_clamp") && silent(kFlow + "weight_ema"))
    f.weighting = "fixed", f.normalize_losses = false, f.weight_clamp.clear(), f.weight_ema = 0;
  if (begun.flow.time_sampling == "uniform" && silent(kFlow + "time_sampling")) f.time_sampling = "uniform";
  if (begun.model.residual_scale == 1 && silent(kResidualScale)) c.model.residual_scale = 1;
}

void resolve_config(Config& c, std::set<std::string> const& overridden, WrittenBy writer) {
  apply_reference_behaviour(c, writer);
  apply_plain_defaults(c, writer);
  settle_weighting(c, overridden, writer);
  c.model.editor = editor_kind(c.editor_kind);
  if (!model::knows_time(c.model.editor)) {
    edit_at_once(c, "num_ode_steps", c.flow.num_ode_steps, std::int64_t{1}, writer);
    edit_at_once(c, "ode_solver", c.flow.ode_solver, std::string("euler"), writer);
  }
  if (c.dist.reproducible) {  // nothing may follow from the rank count
    if (c.dist.virtual_shards == 0) c.dist.virtual_shards = 8;
    if (c.dist.threads == 0) c.dist.threads = 1;
  }
  note_what_has_no_effect(c);
  c.model.env_height = c.env_image_size;
  c.model.compute = c.training.use_amp ? model::ComputeType::bf16 : model::ComputeType::fp32;
  c.model.recompute_every = c.training.grad_checkpoint_every;
  c.model.recompute_part = recompute_part(c.training.grad_checkpoint_part);
}

}  // namespace duoflow::launch
