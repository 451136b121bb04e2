#include "launch/config.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <set>
#include <sstream>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <yaml-cpp/yaml.h>

#include "launch/config_leaves.h"
#include "launch/config_validation.h"
#include "model/edit_distance.h"

namespace duoflow::launch {
namespace {

// Other spellings of a key -> the key. Both written out with different values is an error.
std::vector<std::pair<std::string, std::string>> const kAliases = {
    {"model.transformer.freeze_reconstructor_renderer", "training.freeze_reconstructor_renderer"},
    {"training.flow_loss_weight", "model.transformer.editor.flow_matching.velocity_loss_weight"},
    {"model.transformer.editor.flow_matching.flow_loss_weight",
     "model.transformer.editor.flow_matching.velocity_loss_weight"},
    {"training.LVSM_checkpoint_dir", "training.init_from"},
    {"training.flow_match.inference_steps", "model.transformer.editor.flow_matching.num_ode_steps"},
    {"training.flow_match.inference_method", "model.transformer.editor.flow_matching.ode_solver"},
    {"training.flow_match.noise_scale", "model.transformer.editor.flow_matching.path_sigma"},
};

constexpr char const* kCommandLine = "command line";
std::string const kWeighting = "model.transformer.editor.flow_matching.weighting";
std::string const kNormalizeLosses = "model.transformer.editor.flow_matching.normalize_losses";

enum class WrittenBy { user, duoflow };

std::string const* unused_reason(std::string const& key) {
  for (auto const& [pattern, reason] : unused_keys()) {
    bool const section = pattern.ends_with(".*");
    auto const stem = section ? pattern.substr(0, pattern.size() - 2) : pattern;
    if (key == stem || (section && key.starts_with(stem + "."))) return &reason;
  }
  return nullptr;
}

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

// ConfigError listing the classes there are.
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

class Loader {
 public:
  explicit Loader(Config& config) : config_(config), keys_(config_keys(config)) {}

  void apply(Leaf const& leaf) {
    if (leaf.spelling == "training.skip_renderer" && leaf.value.as<bool>(false))
      return set(key_ending_with(".render_loss_weight"), {leaf.spelling, YAML::Node(0), leaf.where});
    if (leaf.spelling == "training.recon_only" && leaf.value.as<bool>(false))
      return set(key_ending_with("objective"), {leaf.spelling, YAML::Node("reconstruction"), leaf.where});
    auto name = leaf.spelling;
    for (auto const& [alias, key] : kAliases)
      if (leaf.spelling == alias) name = key;
    auto const found = std::find_if(keys_.begin(), keys_.end(), [&](ConfigKey const& k) { return k.name == name; });
    if (found == keys_.end()) return note_unused(leaf);
    set(*found, leaf);
  }

  // After each source (the file, then the command line): the spellings of one key must agree within it.
  void end_source() {
    for (auto const& [key, spellings] : said_) {
      auto const& [first, said_first] = *spellings.begin();
      for (auto const& [spelling, said] : spellings)
        if (said.value != said_first.value)
          throw ConfigError(fmt::format("{}: {} = {} contradicts {} = {} (they are one setting); keep one", said.where,
                                        spelling, said.value, first, said_first.value));
    }
    said_.clear();
  }

  std::set<std::string> const& overridden() const { return overridden_; }

 private:
  struct Said {
    std::string value, where;
  };

  void set(ConfigKey const& key, Leaf const& leaf) {
    if (leaf.value.IsNull() && leaf.where != kCommandLine) return;  // `key:` with nothing in a file keeps the default
    try {
      key.set(leaf.value);
    } catch (YAML::Exception const&) {
      throw ConfigError(fmt::format("{}: {} = {} is not a {} ({}); write one, for example {}", leaf.where,
                                    leaf.spelling, YAML::Dump(leaf.value), key.type, key.description, key.get()));
    }
    bool const again = !said_[key.name].insert_or_assign(leaf.spelling, Said{key.get(), leaf.where}).second;
    if (leaf.where == kCommandLine)
      overridden_.insert(key.name);  // the same spelling again: the later one wins
    else if (again)
      throw ConfigError(fmt::format("{}: {} is there twice; keep one", leaf.where, leaf.spelling));
    config_.written.insert(key.name);
  }

  ConfigKey const& key_ending_with(std::string const& end) const {
    return *std::find_if(keys_.begin(), keys_.end(), [&](ConfigKey const& k) { return k.name.ends_with(end); });
  }

  // As the reference reads them: a name or a list, nothing meaning maps.
  static bool asks_for_light_maps(YAML::Node const& signals) {
    auto const names =
        signals.IsSequence() ? signals.as<std::vector<std::string>>() : std::vector{signals.as<std::string>("")};
    auto const has = [&](char const* name) { return std::find(names.begin(), names.end(), name) != names.end(); };
    return has("envmap") || !has("point_light");
  }

  // Unused keys whose value asks for another objective than the one that would run.
  static void refuse_dropped_request(Leaf const& leaf) {
    if (leaf.spelling == "training.relight_signals" && !asks_for_light_maps(leaf.value))
      throw ConfigError(
          fmt::format("{}: {} asks for point lights alone, which are left out (the editor would see no "
                      "light); take a config with envmap among them",
                      leaf.where, leaf.spelling));
    bool const dpt = leaf.spelling == "model.decoder_head.type" && leaf.value.as<std::string>("") != "mlp";
    if (dpt)
      throw ConfigError(fmt::format("{}: {} = {} (violated: mlp, the plain head is the one there is)", leaf.where,
                                    leaf.spelling, YAML::Dump(leaf.value)));
  }

  void note_unused(Leaf const& leaf) {
    if (auto const* reason = unused_reason(leaf.spelling)) {
      refuse_dropped_request(leaf);
      if (leaf.spelling.ends_with(".use_residual_mode")) config_.residual_mode = leaf.value.as<bool>(false);
      config_.notes.push_back(fmt::format("{}: {} is not used ({})", leaf.where, leaf.spelling, *reason));
      return;
    }
    if (!config_.class_name.empty()) reference_editor(config_.class_name);  // another class has other keys: say that
    auto const near = nearest_key(leaf.spelling);
    throw ConfigError(fmt::format("{}: unknown key {} (it would be ignored silently); {}", leaf.where, leaf.spelling,
                                  fmt::format("did you mean {}? All keys are in docs/config.md", near)));
  }

  Config& config_;
  std::vector<ConfigKey> keys_;
  std::map<std::string, std::map<std::string, Said>> said_;  // by the source being read: key -> spelling -> value
  std::set<std::string> overridden_;                         // keys that the command line set
};

constexpr std::int64_t kReferenceEnvSize = 256;

constexpr double kReferenceNoiseLatentScale = 0.136;

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
  if (editor == "one_step") unless_written(e + "flow_matching.velocity_loss_weight", c.flow.velocity_loss_weight, 0.0);
  if (c.flow.path_sigma != 0) unless_written(e + "flow_matching.path", c.flow.path, std::string("noisy_linear"));
  unless_written(e + "time_scale", c.model.time_scale, 1.0);
  unless_written(e + "velocity_head", c.model.velocity_head, false);
  unless_written(e + "light_in_adaln", c.model.light_in_adaln, false);
  unless_written(e + "normalize_latents", c.model.normalize_latents, false);
  unless_written("training.freeze_reconstructor_renderer", c.training.freeze_reconstructor_renderer, false);
  // A run's own config without the key is of before there was one.
  if (writer == WrittenBy::user) unless_written("data.camera_frame", c.data.camera_frame, "all");
  std::string const env_size = "model.env_tokenizer.image_size";
  if (c.written.contains(env_size) && c.env_image_size != kReferenceEnvSize)
    c.notes.push_back(fmt::format("{} = {} is taken as {}: {} never reads that key", env_size, c.env_image_size,
                                  kReferenceEnvSize, c.class_name));
  c.env_image_size = kReferenceEnvSize;
}

// Weightings that `statistics` can make lag.
bool knows_weights_at_cut(FlowMatchingConfig const& f) {
  return f.weighting == "normalized" || f.weighting == "normalized_each" ||
         (f.weighting == "gradient_balance" && f.gradient_space == "v_pred");
}

// Options of one weighting or time sampling beside another.
void note_other_choices(Config& c) {
  FlowMatchingConfig const& f = c.flow;
  FlowMatchingConfig const usual;
  auto const note_of = [&](char const* choice, std::string const& chosen, char const* owner, char const* key,
                           bool changed) {
    auto const name = fmt::format("model.transformer.editor.flow_matching.{}", key);
    if (chosen != owner && changed && c.written.contains(name))
      c.notes.push_back(fmt::format("{} has no effect (it is of {}: {})", name, choice, owner));
  };
  auto const note_time = [&](char const* owner, char const* key, bool changed) {
    note_of("time_sampling", f.time_sampling, owner, key, changed);
  };
  note_time("logit_normal", "time_mean", f.time_mean != usual.time_mean);
  note_time("logit_normal", "time_deviation", f.time_deviation != usual.time_deviation);
  note_time("mode", "time_mode_scale", f.time_mode_scale != usual.time_mode_scale);
  note_time("discrete", "discrete_times", f.discrete_times != usual.discrete_times);
  auto const note = [&](char const* owner, char const* key, bool changed) {
    note_of("weighting", f.weighting, owner, key, changed);
  };
  note("two_stage", "velocity_only_steps", f.velocity_only_steps != usual.velocity_only_steps);
  note("alternating", "alternating_period", f.alternating_period != usual.alternating_period);
  note("uncertainty", "uncertainty_lr", f.uncertainty_lr != usual.uncertainty_lr);
  note("gradient_balance", "gradient_space", f.gradient_space != usual.gradient_space);
  note("gradient_balance", "gradient_interval", f.gradient_interval != usual.gradient_interval);
  note("schedule", "warmup_steps", f.warmup_steps != usual.warmup_steps);
  note("schedule", "schedule_form", f.schedule_form != usual.schedule_form);
  note("schedule", "velocity_start", f.velocity_start != usual.velocity_start);
  note("schedule", "velocity_end", f.velocity_end != usual.velocity_end);
  note("schedule", "render_start", f.render_start != usual.render_start);
  note("schedule", "render_end", f.render_end != usual.render_end);
}

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
  note(networks && t.perceptual_min_t > 0 && c.objective == "reconstruction", "training.perceptual_min_t",
       "reconstruction has no times");
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

void resolve(Config& c, std::set<std::string> const& overridden, WrittenBy writer) {
  apply_reference_behaviour(c, writer);
  settle_weighting(c, overridden, writer);
  c.model.editor = editor_kind(c.editor_kind);
  bool const steps_written = c.written.contains("model.transformer.editor.flow_matching.num_ode_steps");
  if (!model::knows_time(c.model.editor) && (!steps_written || !c.class_name.empty())) {
    if (steps_written && c.flow.num_ode_steps != 1)  // the family's YAMLs carry flow_match along
      c.notes.push_back(
          fmt::format("num_ode_steps = {} is taken as 1: {} knows no time", c.flow.num_ode_steps, c.class_name));
    c.flow.num_ode_steps = 1;
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

}  // namespace

std::string nearest_key(std::string const& key) {
  constexpr std::size_t longest = 200;  // the comparison takes the product of two lengths
  if (key.size() > longest) return nearest_key(key.substr(0, longest));
  Config scratch;
  std::string best;
  std::size_t best_distance = std::numeric_limits<std::size_t>::max();
  auto consider = [&](std::string const& candidate) {
    auto const distance = model::edit_distance(key, candidate);
    if (distance < best_distance) best = candidate, best_distance = distance;
  };
  for (auto const& valid : config_keys(scratch)) consider(valid.name);
  for (auto const& [alias, target] : kAliases) consider(alias);
  if (best_distance >= std::max<std::size_t>(3, key.size() / 3)) {  // the right name in the wrong section?
    auto const leaf = key.substr(key.rfind('.') + 1);
    for (auto const& valid : config_keys(scratch))
      if (valid.name.substr(valid.name.rfind('.') + 1) == leaf) return valid.name;
  }
  return best;
}

namespace {

Config parse(std::string const& yaml, std::string const& origin, std::vector<std::string> const& overrides,
             WrittenBy writer) {
  Config config;
  Loader loader(config);
  for (auto const& leaf : read_leaves(yaml, origin)) loader.apply(leaf);
  loader.end_source();
  for (auto const& text : overrides) {
    auto const equals = text.find('=');
    if (equals == std::string::npos || equals == 0)
      throw ConfigError(fmt::format("argument {} is not key=value (overrides look like training.lr=1e-3)", text));
    YAML::Node value{std::string()};  // `key=` empties a string
    try {
      if (equals + 1 < text.size()) value = YAML::Load(text.substr(equals + 1));
    } catch (YAML::Exception const& error) {
      throw ConfigError(fmt::format("override {} is not a YAML value ({})", text, error.what()));
    }
    loader.apply({text.substr(0, equals), value, kCommandLine});
  }
  loader.end_source();
  resolve(config, loader.overridden(), writer);
  validate(config);
  return config;
}

}  // namespace

Config parse_config(std::string const& yaml, std::string const& origin, std::vector<std::string> const& overrides) {
  return parse(yaml, origin, overrides, WrittenBy::user);
}

Config parse_stored_config(std::string const& yaml, std::string const& origin,
                           std::vector<std::string> const& overrides) {
  return parse(yaml, origin, overrides, WrittenBy::duoflow);
}

Config load_config(std::string const& path, std::vector<std::string> const& overrides) {
  std::error_code ignored;
  bool const is_file = std::filesystem::is_regular_file(path, ignored);  // first: opening a pipe waits for a writer
  std::ifstream file(is_file ? path : std::string());
  if (!file)
    throw ConfigError(fmt::format(
        "config {} cannot be read (missing, no file, or no permission); give an existing file with --config", path));
  std::stringstream text;
  text << file.rdbuf();
  return parse_config(text.str(), path, overrides);
}

namespace {

struct Section {
  std::string name, value;  // a leaf has a value, a section has parts
  std::vector<Section> parts;

  Section& part(std::string const& wanted) {
    for (auto& existing : parts)
      if (existing.name == wanted) return existing;
    return parts.emplace_back(Section{wanted, "", {}});
  }
  void print(std::string& text, std::size_t indent) const {
    for (auto const& item : parts) {
      text += std::string(indent, ' ') + item.name + ":" + (item.parts.empty() ? " " + item.value : "") + "\n";
      item.print(text, indent + 2);
    }
  }
};

}  // namespace

std::string effective_yaml(Config const& config) {
  Config copy = config;
  Section root;
  for (auto const& key : config_keys(copy)) {
    std::stringstream path(key.name);
    Section* section = &root;
    for (std::string part; std::getline(path, part, '.');) section = &section->part(part);
    section->value = key.get();
  }
  std::string text;
  root.print(text, 0);
  return text;
}

std::string config_table_markdown() {
  Config defaults;
  std::string text =
      "# Keys of the configuration\n\nMade from the table of keys in `launch/config_keys.cpp`; a test holds the two "
      "equal. A dot is a level of the YAML file;\n"
      "`key=value` on the command line comes last and wins.\n\n| key | type | default | meaning |\n|---|---|---|---|\n";
  for (auto const& key : config_keys(defaults))
    text += fmt::format("| `{}` | {} | `{}` | {} |\n", key.name, key.type, key.get(), key.description);
  text += "\n| spelling | is |\n|---|---|\n";
  for (auto const& [alias, key] : kAliases) text += fmt::format("| `{}` | `{}` |\n", alias, key);
  text += "\n| known, not used | why |\n|---|---|\n";
  for (auto const& [key, reason] : unused_keys()) text += fmt::format("| `{}` | {} |\n", key, reason);
  return text;
}

}  // namespace duoflow::launch
